"""Demos on real data that ships with Python packages."""
