"""Corpora at any scale: manifests, datasets, samplers."""
