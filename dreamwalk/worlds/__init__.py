"""Games and what they are made of: Doom and its levels, any gymnasium game, recordings."""
