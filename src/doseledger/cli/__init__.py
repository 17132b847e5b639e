"""The command line: one typer module a subject, and no logic."""
