"""Weights that others trained and released, read as ours."""
