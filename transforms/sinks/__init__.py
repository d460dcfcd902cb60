"""Writes results to files: a module for each kind of output."""
