"""Models in SpeechBrain's way: ``from_hparams``, ``encode_batch``, ``classify_file``.

    tagger = EATTagger.from_hparams(source="RUN/model", run_opts={"device": "cuda"})
    out_prob, score, index, text_lab = tagger.classify_file("dog.wav")

The source is a model folder of this toolkit, here or on the Hugging Face hub. Its
``hyperparams.yaml`` names :class:`ModelFolder`, which collects the other files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.data_utils import split_path
from speechbrain.utils.fetching import fetch
from torch import Tensor, nn

from eat.audio.frontend import SAMPLE_RATE
from eat.audio.io import read_audio
from eat.inference.features import AudioEncoder, Features, from_pretrained

FILES = ("config.json", "model.safetensors")
Classified = tuple[Tensor, Tensor, Tensor, list[str]]


class ModelFolder(nn.Module):
    """A model that SpeechBrain's ``from_hparams`` loads: module and pretrainer in one.

    SpeechBrain's own pretrainer renames the files that it collects, and looks for them
    in the working directory rather than in the source.
    """

    model: AudioEncoder

    def __init__(self) -> None:
        super().__init__()
        self.savedir: str | None = None
        self.folder = Path()

    def set_collect_in(self, savedir: str | None) -> None:
        """Set the folder in which links to the files are made; None for no links."""
        self.savedir = savedir

    def collect_files(self, default_source: Any, **options: Any) -> None:
        """Fetch the files from the source, if they are not in the folder yet."""
        for name in FILES:
            path = fetch(name, default_source, savedir=self.savedir, **options)
            self.folder = Path(path).parent

    def load_collected(self) -> None:
        """Load the model, on the CPU; SpeechBrain moves it."""
        self.model = from_pretrained(self.folder, device="cpu")


class EATFeatures(Pretrained):
    """Features of waveforms and files, see `eat.inference.features.AudioEncoder`.

    The ``precision`` of `run_opts` is ``fp32`` or ``bf16``.
    """

    MODULES_NEEDED = ["model"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision {self.precision}: choose fp32 or bf16")
        self.model.precision = self.precision

    @property
    def model(self) -> AudioEncoder:
        """The model, as `eat.from_pretrained` returns it."""
        return self.mods.model.model

    def encode_batch(
        self, wavs: Tensor, wav_lens: Tensor | None = None, **options: Any
    ) -> Tensor:
        """Return features `[B, D]` of waveforms `[B, S]` or `[S]` at 16 kHz.

        The lengths `[B]` are relative to S; `options` are those of
        `AudioEncoder.encode_batch`, for instance ``granularity="frames"``.
        """
        return self.model.encode_batch(wavs, wav_lens, **options)

    def encode_file(self, path: str | os.PathLike[str], **options: Any) -> Features:
        """Return the features of a file of any length and sample rate."""
        return self.model.encode_file(path, **options)

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Any:
        """Return the features of a batch."""
        return self.encode_batch(wavs, wav_lens)


class EATTagger(EATFeatures):
    """A fine-tuned model that answers as SpeechBrain's ``EncoderClassifier``."""

    def classify_batch(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> Classified:
        """Classify waveforms `[B, S]` or `[S]` at 16 kHz.

        Returns
        -------
        tuple
            Logarithms of the scores `[B, C]`, those of the best class `[B]`, its index
            `[B]`, and its name for each clip.
        """
        tiny = torch.finfo(torch.float32).tiny
        out_prob = self.model.tag_batch(wavs, wav_lens).clamp(min=tiny).log()
        score, index = out_prob.max(dim=-1)
        names = self.model.labels or [str(i) for i in range(out_prob.shape[1])]
        return out_prob, score, index, [names[i] for i in index.tolist()]

    def classify_file(self, path: str, savedir: str | None = None) -> Classified:
        """Classify a file of any length and sample rate; it may be on a hub or server.

        Returns what :meth:`classify_batch` returns, for a batch of one.
        """
        source, name = split_path(path)
        path = fetch(name, source=source, savedir=savedir)
        return self.classify_batch(read_audio(path, SAMPLE_RATE))

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Classified:
        """Classify a batch."""
        return self.classify_batch(wavs, wav_lens)
