"""Where cases come from, and how they are dealt into splits."""
