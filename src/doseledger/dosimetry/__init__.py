"""Clinical dosimetry of arrays: gamma, DVH, goals, intervals."""
