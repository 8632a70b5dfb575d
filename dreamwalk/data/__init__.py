"""Where clips come from, how they lie on disk, and the worlds that they are recorded in."""
