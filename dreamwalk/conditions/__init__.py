"""What a backbone is told besides the frames: actions."""
