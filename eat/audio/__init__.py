"""Audio files to waveforms to log-mel spectrograms."""
