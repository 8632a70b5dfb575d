"""The systems: each a choice of codec, backbone, schedule and loss, in one file that reads like its paper's method."""
