"""The nouns every other package speaks; nothing here knows a path, a model or a gate."""
