"""EVAR: a representation for `lineareval.py`, with the methods of `BaseAudioRepr`.

Its YAML file names the class, ``audio_repr: ar_eat_toolkit.AR_EAT``, the checkpoint,
``weight_file: RUN/model``, and any of ``layers``, ``pooling`` and ``pad_to``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from eat.inference.features import from_pretrained

OPTIONS = ("layers", "pad_to")


class AR_EAT(nn.Module):  # noqa: N801 (EVAR's names)
    """A frozen checkpoint; `cfg` holds the settings of the YAML file."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg = cfg
        self.model = from_pretrained(cfg["weight_file"])
        self.pooling = cfg.get("pooling", "cls")
        self.options = {name: cfg[name] for name in OPTIONS if name in cfg}

    def precompute(self, device: torch.device, data_loader: object) -> None:
        """Do nothing: the normalization is the checkpoint's."""

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
