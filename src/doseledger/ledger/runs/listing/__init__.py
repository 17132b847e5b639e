"""Runs as rows: read from revisions, searched, and shown."""
