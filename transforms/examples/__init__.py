"""From decoded columns to labels, weights, identities and slices."""
