"""What a run finds out, a file for each check."""
