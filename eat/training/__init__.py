"""The training step: Brains, optimizer, checkpoints, logs."""
