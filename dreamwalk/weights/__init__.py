"""Weight files that open themselves."""
