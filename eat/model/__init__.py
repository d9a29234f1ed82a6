"""The network: patches, post-norm transformer, encoder, CNN decoder, classifier."""
