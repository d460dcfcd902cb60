"""From the merged table to results: metrics of each slice, and comparisons of versions."""
