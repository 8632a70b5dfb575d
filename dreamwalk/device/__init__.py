"""What a computation takes on a device, and how large ones are made to fit."""
