"""X-ARES: an encoder for the file that `python -m xares.run` is given.

X-ARES builds the class whose name ends in ``Encoder`` without arguments, and keeps its
results under that name. So the file is

    from eat.adapters import xares

    class EATLayer6Encoder(xares.EATEncoder):
        def __init__(self):
            super().__init__("RUN/model", layers=6)

with another name for other options.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from eat.audio.frontend import SAMPLE_RATE
from eat.inference.features import from_pretrained
from eat.inference.windows import FRAME_MS


class EATEncoder(nn.Module):
    """A checkpoint with the attributes that X-ARES reads.

    Parameters
    ----------
    source
        A checkpoint, see :func:`eat.from_pretrained`.
    hop_ms
        Distance of the frames in ms: 160, or a divisor of it that is a multiple of 10.
    options
        Further options of :meth:`AudioEncoder.encode_batch`, such as ``layers``.
    """

    def __init__(self, source: str, hop_ms: int = FRAME_MS, **options: Any) -> None:
        super().__init__()
        self.model = from_pretrained(source)
        self.options = {"hop_ms": hop_ms, **options}
        self.sampling_rate = SAMPLE_RATE
        self.hop_size_in_ms = hop_ms
        self.output_dim = self.model.encoder.dim

    def forward(self, audio: Tensor) -> Tensor:
        """Encode clips `[B, S]`, or one `[S]`, of any length to frames `[B, T, D]`."""
        return self.model.encode_batch(
            torch.atleast_2d(audio), granularity="frames", **self.options
        )
