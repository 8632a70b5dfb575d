"""What backbones are built of: attention, rotary positions, modulation, the ring cache."""
