"""The quick start: pre-train, fine-tune and probe a tiny EAT."""
