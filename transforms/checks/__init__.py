"""The checks of a run, a module for each."""
