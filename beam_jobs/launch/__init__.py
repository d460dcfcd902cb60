"""Runners, clusters and workers: where a pipeline runs."""
