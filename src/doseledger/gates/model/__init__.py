"""Judges of a model: preflight, metrics, training, shortcuts."""
