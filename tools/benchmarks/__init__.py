"""Benchmarks, one command each: kills, millions of clips, manifests."""
