"""Audio in, features out, by any checkpoint."""
