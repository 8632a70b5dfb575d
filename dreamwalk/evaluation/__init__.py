"""The examination: how true, how obedient and how fast a dream is."""
