"""The training of one model: steps, checkpoints, resume."""
