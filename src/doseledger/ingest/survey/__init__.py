"""Raw exports surveyed as they are, and laid out a folder a case."""
