"""Sealed bundles: packed, verified, rehydrated."""
