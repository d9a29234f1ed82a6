"""Checkpoints in and out: our model folders, fairseq files, Hugging Face folders."""
