"""Training watched: red flags, heartbeat, watchdog."""
