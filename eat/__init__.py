"""EAT, the Efficient Audio Transformer: pre-training, fine-tuning and use.

From an audio file to features:

    import eat

    model = eat.from_pretrained("RUN/model")
    features = model.encode_file("dog.wav").values  # [D]

Checkpoints (a model folder of this toolkit, an official fairseq ``.pt`` file, or a
downloaded Hugging Face folder of the authors):

- ``from_pretrained``: the whole model, from audio to features
- ``load_encoder``: spectrogram to tokens
- ``load_classifier``: spectrogram to logits
- ``load_frontend``: waveform to spectrogram
- ``load_pretraining``: student, decoder and teacher with the training objective

Training: each folder in ``recipes/`` (AudioSet, ESC50, SpeechCommands, OwnData) has a
README and a ``train.py`` for ``hparams/pretrain.yaml`` and ``hparams/finetune.yaml``.

The command ``eat features`` writes the features of files, folders and corpora;
``tools/compute_stats.py`` finds normalization constants. More is in ``docs/``.

Symbols in shapes: B batch, K clones (masks) per clip, N patches, V visible patches, D
width, T frames, F mel bins, S samples, C classes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from eat._version import __version__

if TYPE_CHECKING:
    from eat.inference.features import from_pretrained
    from eat.interop.loading import (
        load_classifier,
        load_encoder,
        load_frontend,
        load_pretraining,
    )

__all__ = [
    "__version__",
    "from_pretrained",
    "load_classifier",
    "load_encoder",
    "load_frontend",
    "load_pretraining",
]


_HOMES = {
    "from_pretrained": "eat.inference.features",
    "load_classifier": "eat.interop.loading",
    "load_encoder": "eat.interop.loading",
    "load_frontend": "eat.interop.loading",
    "load_pretraining": "eat.interop.loading",
}
_SUBPACKAGES = ("audio", "inference", "interop", "model", "pretraining")


def __getattr__(name: str) -> object:
    """Import the library, and torch with it, at first use."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _SUBPACKAGES:
        import_module("eat.inference.features")  # it uses all of them
        return import_module(f"eat.{name}")
    raise AttributeError(f"module 'eat' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
