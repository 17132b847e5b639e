"""Pools that work on cases, and the work dealt out to them."""
