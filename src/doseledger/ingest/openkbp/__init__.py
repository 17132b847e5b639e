"""OpenKBP patients as cases."""
