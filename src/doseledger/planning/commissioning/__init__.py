"""A beam fitted to what a clinic has measured."""
