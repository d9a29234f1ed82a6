"""Audio in, features out, with any checkpoint."""
