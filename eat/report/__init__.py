"""From logs to curves, pictures and tables."""
