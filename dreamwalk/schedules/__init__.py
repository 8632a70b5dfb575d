"""Noise schedules as data: the path between data and noise, plans, training levels, keyed noise."""
