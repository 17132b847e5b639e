"""Judges of cases and splits, before anything trains."""
