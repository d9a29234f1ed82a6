"""MAEB, the audio benchmark of MTEB: a model for `mteb.evaluate`.

import mteb
from eat.adapters.mteb import EATEncoder

model = EATEncoder("RUN/model", layers=6, pooling="mean")
mteb.evaluate(model, mteb.get_benchmark("MAEB(v1, audio-only)"))
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.modality_collators import AudioCollator
from mteb.models.model_meta import ScoringFunction
from torch.utils.data import DataLoader
from tqdm import tqdm

from eat.audio.frontend import SAMPLE_RATE
from eat.inference.features import from_pretrained


class EATEncoder(AbsEncoder):
    """A checkpoint that encodes the clips of a task, one vector each.

    Parameters
    ----------
    source
        A checkpoint, see :func:`eat.from_pretrained`.
    name
        Of the model, in the results: ``organization/model``.
    device
        Of the model; by default a GPU if there is one.
    options
        Options of :meth:`AudioEncoder.encode_batch`, such as ``layers`` and
        ``pooling``. Results are kept apart by them.
    """

    def __init__(
        self,
        source: str,
        name: str = "eat/eat",
        device: str | None = None,
        **options: Any,
    ) -> None:
        self.model = from_pretrained(source, device=device)
        self.options = options
        width = self.model.encoder.dim
        parameters = list(self.model.encoder.parameters())
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": name,
                "revision": _checksum(parameters),
                "modalities": ["audio"],
                "embed_dim": 2 * width if options.get("pooling") == "both" else width,
                "n_parameters": sum(p.numel() for p in parameters),
                "similarity_fn_name": ScoringFunction.COSINE,
                "framework": ["PyTorch"],
                "experiment_kwargs": options or None,
            }
        )

    def encode(self, inputs: DataLoader[Any], **task: Any) -> np.ndarray:
        """Encode the clips of a data loader, of any sample rate, to `[M, D]`."""
        inputs.collate_fn = AudioCollator(target_sampling_rate=SAMPLE_RATE)
        vectors = []
        for batch in tqdm(inputs, disable=None):
            wavs = [torch.as_tensor(clip["array"]).float() for clip in batch["audio"]]
            vectors.append(self.model.encode_batch(wavs, **self.options).cpu())
        return torch.cat(vectors).numpy()


def _checksum(parameters: list[torch.nn.Parameter]) -> str:
    """Return a checksum of the weights, which tells their results in MTEB's cache."""
    digest = hashlib.sha256()
    for parameter in parameters:
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
