"""The training loop, its checkpoints, its optimizers and the named runs."""
