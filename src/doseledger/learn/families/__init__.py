"""Kinds of model: what each trains, and how."""
