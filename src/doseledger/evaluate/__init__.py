"""Errors, DVHs, goals and gamma of predicted doses."""
