"""Faults of rising size, put into copies of a cohort's own cases."""
