"""Training curves, pictures and tables from logs and results."""
