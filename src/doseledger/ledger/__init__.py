"""Records of a run: what made it, and the report on it."""
