"""Small corpora of real recordings in the layouts of the true ones."""
