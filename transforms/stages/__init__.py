"""Beam transforms with as little logic as possible; only this folder imports Beam."""
