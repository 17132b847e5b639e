"""Losses on voxels and on DVHs."""
