"""De-identified copies of raw cases, and their key."""
