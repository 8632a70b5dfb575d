"""Backbones predict what is missing from noisy latents, given conditions, the history and the noise level."""
