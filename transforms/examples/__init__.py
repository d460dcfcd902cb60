"""Decoded columns to labels, weights, identities and slices, and their scores by every version."""
