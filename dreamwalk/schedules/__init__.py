"""Noise levels as data: the path between data and noise, matrices of levels, keyed randomness."""
