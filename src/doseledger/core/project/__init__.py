"""A project: its paths, and the protocol of a cohort."""
