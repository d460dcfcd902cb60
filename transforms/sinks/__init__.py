"""Results to files: one module for each kind of output."""
