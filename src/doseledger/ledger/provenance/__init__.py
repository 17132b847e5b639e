"""Code revision, environment and what DVC recorded."""
