"""Dose, DVH and gamma of single files."""
