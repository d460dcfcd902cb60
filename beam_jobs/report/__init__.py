"""Reports runs to people."""
