"""Runs: files, checks, archive and index."""
