"""EVAR: a representation for `lineareval.py`; to be imported with EVAR on the path.

Its YAML file names the class, ``audio_repr: ar_eat_toolkit.AR_EAT``, the checkpoint,
``weight_file: RUN/model``, and any of ``layers``, ``pooling`` and ``pad_to``.
"""

from __future__ import annotations

from typing import Any

from evar.ar_base import BaseAudioRepr
from torch import Tensor

import eat

OPTIONS = ("layers", "pad_to")


class AR_EAT(BaseAudioRepr):  # noqa: N801 (EVAR's names)
    """A frozen checkpoint; `cfg` holds the settings of the YAML file."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.model = eat.from_pretrained(cfg["weight_file"])
        self.pooling = cfg.get("pooling", "cls")
        self.options = {name: cfg[name] for name in OPTIONS if name in cfg}

    def encode_frames(self, batch_audio: Tensor) -> Tensor:
        """Encode clips `[B, S]` at 16 kHz to frames of 160 ms `[B, D, T]`."""
        frames = self.model.encode_batch(
            batch_audio, granularity="frames", **self.options
        )
        return frames.transpose(1, 2)

    def forward(self, batch_audio: Tensor) -> Tensor:
        """Encode clips `[B, S]` at 16 kHz to one vector each `[B, D]`."""
        return self.model.encode_batch(
            batch_audio, pooling=self.pooling, **self.options
        )
