"""Photon dose of arcs on a CT."""
