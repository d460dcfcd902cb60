"""Runners, clusters and workers that execute a pipeline."""
