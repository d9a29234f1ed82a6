"""The network: patches, post-norm transformer, encoder, CNN decoder, classifier."""

from eat.utils.allocator import keep_freed_memory

keep_freed_memory()  # before the first large tensor, whoever builds a network
