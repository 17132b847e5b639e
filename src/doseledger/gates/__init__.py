"""The judges; they never call the code that they judge."""
