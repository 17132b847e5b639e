"""Judges of cohorts and stacks unlike the training data."""
