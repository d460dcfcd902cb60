"""From staged parts to a verified, published run."""
