"""Names of structures in five languages, and which may mean the same."""
