"""The systems: each a codec, a backbone, a schedule and a loss, in a file that reads like its paper."""
