"""Audio in, features out: any checkpoint as one module."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from eat.audio.frontend import HOP, SAMPLE_RATE, WINDOW, LogMel
from eat.audio.io import read_audio
from eat.errors import ExperimentError
from eat.interop.loading import Checkpoint
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder, EncoderOutput
from eat.model.patching import grid_of

POOLINGS = ("cls", "mean")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Features:
    """Features `[D]` of a recording, fp32 on the CPU.

    `times` has start and end in seconds `[1, 2]` of the part that was encoded.
    """

    values: Tensor
    times: Tensor
    path: Path

    def numpy(self) -> np.ndarray:
        """Return the values as an array."""
        return self.values.numpy()


class AudioEncoder(nn.Module):
    """Front end and network of a checkpoint: waveforms in, features out.

    Frozen and in evaluation mode; ``requires_grad_()`` makes it trainable again. The
    network is the encoder of a pre-trained checkpoint or the classifier of a fine-tuned
    one, with its class names in the order of the logits. The precision is ``fp32``, or
    ``bf16`` to run the encoder in autocast.
    """

    def __init__(
        self,
        frontend: LogMel,
        network: EATEncoder | EATClassifier,
        labels: Sequence[str] | None = None,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision '{precision}': choose from {list(PRECISIONS)}")
        self.frontend = frontend
        self.network = network
        self.labels = labels
        self.precision = precision
        self.eval().requires_grad_(False)

    @property
    def classifier(self) -> EATClassifier | None:
        """The classifier; None if the checkpoint was not fine-tuned."""
        return self.network if isinstance(self.network, EATClassifier) else None

    @property
    def encoder(self) -> EATEncoder:
        """The encoder, which is part of the classifier if there is one."""
        network = self.network
        return network.encoder if isinstance(network, EATClassifier) else network

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.encoder.cls_token.device

    @property
    def max_samples(self) -> int:
        """Samples that fit into the model's frames; the rest of a clip is ignored."""
        return (self.frontend.num_frames - 1) * HOP + WINDOW

    @property
    def max_seconds(self) -> float:
        """Seconds that fit into the model's frames."""
        return self.max_samples / SAMPLE_RATE

    def forward(self, wav: Tensor, lengths: Tensor | None = None) -> EncoderOutput:
        """Encode a batch of clips, each padded or cut to the model's frames.

        Parameters
        ----------
        wav
            Waveforms at 16 kHz in [-1, 1], `[B, S]`, zero-padded at the end, on any
            device.
        lengths
            Lengths in samples `[B]`; by default all clips are S samples long.

        Returns
        -------
        EncoderOutput
            ``cls`` `[B, D]` and ``patches`` `[B, N, D]`, fp32 on the model's device.
            The N patches include those of the padding.
        """
        _check_batch(wav, lengths)
        wav = wav.to(self.device)
        lengths = None if lengths is None else lengths.to(self.device)
        bf16 = self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            encoded = self.encoder(self.frontend(wav, lengths))
        return EncoderOutput(encoded.cls.float(), encoded.patches.float())

    @torch.no_grad()
    def encode_file(
        self, path: str | os.PathLike[str], pooling: str = "cls"
    ) -> Features:
        """Encode the first :attr:`max_seconds` of an audio file, see :func:`pool`.

        It may be wav, flac, ogg or mp3, of any sample rate and number of channels.
        Raises `AudioError` if it is missing, or cannot be read as audio.
        """
        wav = read_audio(path, SAMPLE_RATE, self.max_seconds)
        values = pool(self(wav[None]), pooling)[0].cpu()
        times = torch.tensor([[0.0, len(wav) / SAMPLE_RATE]], dtype=torch.float64)
        return Features(values, times, Path(path))


def pool(encoded: EncoderOutput, pooling: str) -> Tensor:
    """Reduce encoder output to one vector for each clip `[B, D]`.

    ``cls`` is the CLS token of the last block, ``mean`` the mean of its patch tokens,
    including those of the padding, as in fine-tuning.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling '{pooling}': choose from {list(POOLINGS)}")
    return encoded.cls if pooling == "cls" else encoded.patches.mean(dim=1)


def from_pretrained(
    source: str | os.PathLike[str],
    weights: str = "student",
    device: str | torch.device | None = None,
    precision: str = "fp32",
    *,
    mean: float | None = None,
    std: float | None = None,
    num_frames: int | None = None,
) -> AudioEncoder:
    """Load a pre-trained or fine-tuned checkpoint as one module, audio to features.

    Parameters
    ----------
    source
        A model folder of this toolkit, an official fairseq ``.pt`` file, or a
        downloaded Hugging Face folder of the authors.
    weights
        ``student`` or ``teacher``; a fine-tuned checkpoint has no teacher.
    device
        Device of the model; by default a GPU if there is one, else the CPU.
    precision
        ``fp32``, or ``bf16`` to run the encoder in autocast.
    mean, std, num_frames
        Override the checkpoint's normalization and number of input frames.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing, corrupt or has no such weights.
    ExperimentError
        If its encoder does not support this number of frames.
    """
    checkpoint = Checkpoint.read(Path(source))
    options = {"mean": mean, "std": std, "num_frames": num_frames}
    overrides = {name: value for name, value in options.items() if value is not None}
    frontend = checkpoint.frontend(**overrides)
    network: EATEncoder | EATClassifier
    if checkpoint.kind == "classifier" and weights == "student":
        network = checkpoint.classifier()
    else:
        network = checkpoint.encoder(weights)
    model = AudioEncoder(frontend, network, checkpoint.labels, precision)
    _check_num_frames(frontend.num_frames, model.encoder, source)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device)


def _check_batch(wav: Tensor, lengths: Tensor | None) -> None:
    if wav.ndim != 2 or not wav.is_floating_point():
        raise ValueError(
            f"wav: expected floating-point samples [B, S] in [-1, 1], got {wav.dtype} "
            f"{list(wav.shape)} (one clip: wav[None])"
        )
    if lengths is None:
        return
    if lengths.shape != (len(wav),) or lengths.is_floating_point():
        raise ValueError(
            f"lengths: expected samples as integers [{len(wav)}], got {lengths.dtype} "
            f"{list(lengths.shape)} (relative lengths: multiply by wav.shape[1], round)"
        )
    if lengths.min() < 0 or lengths.max() > wav.shape[1]:
        raise ValueError(
            f"lengths: {lengths.tolist()}, but wav has {wav.shape[1]} samples"
        )


def _check_num_frames(
    num_frames: int, encoder: EATEncoder, source: str | os.PathLike[str]
) -> None:
    longest = encoder.config["max_frames"]
    if not 0 < num_frames <= longest:
        raise ExperimentError(
            f"num_frames {num_frames}: the encoder of {source} supports up to {longest}"
        )
    try:
        grid_of(num_frames)
    except ValueError as error:
        raise ExperimentError(f"num_frames {num_frames}: {error}") from None
