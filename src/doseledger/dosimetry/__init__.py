"""Dose measured as a clinic does: gamma, DVH, goals, intervals; arrays in, arrays out."""
