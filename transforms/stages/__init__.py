"""Beam transforms, with as little logic as possible: the one folder that imports Beam."""
