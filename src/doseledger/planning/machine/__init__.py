"""The linac as data, its geometry and limits."""
