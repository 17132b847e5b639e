"""Model blocks of params.yaml as typed settings."""
