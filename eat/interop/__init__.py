"""Checkpoints: our folder format, and those of the official code."""
