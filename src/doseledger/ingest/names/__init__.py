"""Names of structures: what they say, in five languages, and which may mean the same."""
