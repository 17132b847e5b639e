"""Whole cases predicted by trained models."""
