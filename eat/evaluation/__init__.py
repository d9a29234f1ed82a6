"""Model quality and training health: metrics, probes, collapse monitor."""
