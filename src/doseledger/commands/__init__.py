"""The commands, one module a subject; each puts its own on the command line and holds no logic."""
