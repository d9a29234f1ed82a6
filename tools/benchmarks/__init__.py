"""Benchmarks: run.py of speed and memory; kills, soak, manifests, millions of clips."""
