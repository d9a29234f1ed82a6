"""HEAR 2021: the functions that the benchmark calls in a module of this name.

hear-validator eat.adapters.hear --model MODEL
python tools/run_hear.py MODEL TASK_FOLDER...

The interface is described at https://hearbenchmark.com/hear-api.html.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eat.audio.frontend import SAMPLE_RATE
from eat.errors import CheckpointError
from eat.inference.features import from_pretrained
from eat.inference.windows import FRAME


class HearModel(nn.Module):
    """A checkpoint and how it is used, with the attributes that HEAR reads.

    Parameters
    ----------
    model_file_path
        A checkpoint, see :func:`eat.from_pretrained`.
    pooling
        Of scene embeddings: ``cls``, ``mean`` or ``both``.
    hop_ms
        Distance of timestamp embeddings in ms. HEAR asks for at most 50.
    options
        Further options of :meth:`AudioEncoder.encode_batch`, such as ``layers``.
    """

    def __init__(
        self,
        model_file_path: str,
        pooling: str = "cls",
        hop_ms: int = 40,
        **options: Any,
    ) -> None:
        super().__init__()
        self.model = from_pretrained(model_file_path)
        self.pooling = pooling
        self.hop_ms = hop_ms
        self.options = options
        self.sample_rate = SAMPLE_RATE
        width = self.model.encoder.dim
        self.timestamp_embedding_size = width
        self.scene_embedding_size = 2 * width if pooling == "both" else width


def load_model(model_file_path: str = "", **options: Any) -> HearModel:
    """Load a checkpoint; the options are those of :class:`HearModel`."""
    if not model_file_path:
        raise CheckpointError("HEAR: no checkpoint given (name one with --model PATH)")
    return HearModel(model_file_path, **options)


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """Encode clips `[B, S]` at 16 kHz to one vector each `[B, D]`."""
    return model.model.encode_batch(audio, pooling=model.pooling, **model.options)


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Encode clips `[B, S]` at 16 kHz to vectors `[B, T, D]` and their times `[B, T]`.

    A time, in ms, is the center of the frame. The first is half a hop, and frames whose
    center is past the end of the clip are dropped. So that the first frames have their
    centers there, half a frame less half a hop of silence is put before the clip.
    """
    hop = model.hop_ms * SAMPLE_RATE // 1000
    # Silence is the mean: an offset of the recording would make a step.
    padded = F.pad(audio - audio.mean(1, keepdim=True), ((FRAME - hop) // 2, 0))
    frames = model.model.encode_batch(
        padded, granularity="frames", hop_ms=model.hop_ms, **model.options
    )
    count = (audio.shape[1] + hop // 2) // hop
    times = (torch.arange(count, device=frames.device) + 0.5) * model.hop_ms
    return frames[:, :count], times.expand(len(audio), -1)
