"""A small-scale study: what pre-training learns, and which of EAT's choices matter."""
