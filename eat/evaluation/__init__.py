"""How good a model is, and whether its training is sound: metrics, probes, signs."""
