"""The merged table to results: metrics of each slice, versions against one another."""
