"""EAT, the Efficient Audio Transformer: pre-training, fine-tuning and use.

Symbols used in shapes everywhere: B batch, K clones (masks) per clip, N patches,
V visible patches, D width, T frames, F mel bins, S samples, C classes.
"""

from eat._version import __version__
from eat.interop.loading import (
    load_classifier,
    load_encoder,
    load_frontend,
    load_pretraining,
)

__all__ = [
    "__version__",
    "load_classifier",
    "load_encoder",
    "load_frontend",
    "load_pretraining",
]
