"""From waveforms to one vector a clip, by the encoder of any checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from eat.audio.frontend import HOP, SAMPLE_RATE, WINDOW, LogMel
from eat.errors import ExperimentError
from eat.interop.loading import load_encoder, load_frontend
from eat.model.encoder import EATEncoder
from eat.model.patching import grid_of

POOLINGS = ("cls", "mean")
PRECISIONS = ("fp32", "bf16")


class ClipEncoder(nn.Module):
    """Front end, encoder and pooling, without gradients.

    Parameters
    ----------
    frontend
        Gives spectrograms `[B, T, F]` of waveforms `[B, S]` and their lengths `[B]`.
    encoder
        Gives tokens of spectrograms.
    pooling
        ``cls``: the CLS token of the last block. ``mean``: the mean of its patch
        tokens, those of the padding among them, as in fine-tuning.
    precision
        ``fp32``, or ``bf16`` for the encoder's autocast.
    """

    def __init__(
        self,
        frontend: LogMel,
        encoder: EATEncoder,
        pooling: str = "cls",
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        self.frontend = frontend
        self.encoder = encoder
        self.config = {
            "encoder": encoder.config,
            **frontend.config,
            "pooling": pooling,
            "precision": precision,
        }

    @property
    def seconds(self) -> float:
        """How much of a clip its frames see."""
        return ((self.config["num_frames"] - 1) * HOP + WINDOW) / SAMPLE_RATE

    @torch.inference_mode()
    def forward(self, wav: Tensor, lengths: Tensor) -> Tensor:
        """Features `[B, D]` in fp32."""
        bf16 = self.config["precision"] == "bf16"
        with torch.autocast(wav.device.type, torch.bfloat16, enabled=bf16):
            encoded = self.encoder(self.frontend(wav, lengths))
        if self.config["pooling"] == "cls":
            return encoded.cls.float()
        return encoded.patches.float().mean(dim=1)


def load_clip_encoder(
    checkpoint: str | Path,
    pooling: str = "cls",
    precision: str = "fp32",
    **frontend: float | None,
) -> ClipEncoder:
    """Load one from a checkpoint, pre-trained (its student) or fine-tuned.

    Parameters
    ----------
    checkpoint
        A model folder of ours, an official ``.pt`` file or a Hugging Face folder.
    pooling, precision
        See :class:`ClipEncoder`.
    **frontend
        ``mean``, ``std`` and ``num_frames`` in place of the checkpoint's; None for
        the checkpoint's.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing or damaged.
    ExperimentError
        If its encoder cannot take so many frames.
    """
    config = load_frontend(checkpoint).config
    config |= {key: value for key, value in frontend.items() if value is not None}
    encoder, frames = load_encoder(checkpoint), config["num_frames"]
    longest = encoder.config["max_frames"]
    if not 0 < frames <= longest:
        raise ExperimentError(
            f"num_frames {frames}: the encoder of {checkpoint} takes up to {longest}"
        )
    try:
        grid_of(frames)
    except ValueError as error:
        raise ExperimentError(f"num_frames {frames}: {error}") from None
    return ClipEncoder(LogMel(**config), encoder, pooling, precision).eval()
