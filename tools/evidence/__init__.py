"""A study in small: what pre-training learns, and which of EAT's choices matter."""
