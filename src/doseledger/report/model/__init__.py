"""The report of one model, with its sections."""
