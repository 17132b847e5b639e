"""Model versions and their stages, as Git tags."""
