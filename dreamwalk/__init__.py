"""dreamwalk: six families of video generation and world models over shared parts."""
