"""Gamma index of two dose grids."""
