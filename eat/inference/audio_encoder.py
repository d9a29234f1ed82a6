"""A model as one module: audio in, features and tags out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from eat.audio.frontend import SAMPLE_RATE
from eat.inference.encoding import Encoding
from eat.inference.file_encoding import encode_in_order
from eat.inference.network import AudioNetwork
from eat.inference.options import check_integer, choose
from eat.inference.reading import default_threads, read_ahead, read_short
from eat.inference.results import Features, Readout, Tag
from eat.inference.tagging import check_top, mean_scores, top_tags, window_scores
from eat.inference.waveforms import Lengths, Waveforms, split_waveforms
from eat.inference.windows import Recording, Windowing

ON_ERROR = ("raise", "skip")
Layers = int | Sequence[int] | str


class AudioEncoder(AudioNetwork):
    """Front end and network of a checkpoint: audio in, features and tags out.

    Frozen and in evaluation mode; ``requires_grad_()`` makes it trainable again, see
    :meth:`forward`. It is on the device of its weights.

    Parameters
    ----------
    frontend
        The front end; its `num_frames` is the length of clips and windows.
    network
        The encoder of a pre-trained checkpoint or the classifier of a fine-tuned one.
    labels
        Class names in the order of the logits.
    precision
        ``fp32``, or ``bf16`` to run the encoder in autocast.
    multi_label
        Whether scores are sigmoids, each class by itself, or a softmax over classes.
    """

    def encode_file(
        self,
        path: str | os.PathLike[str],
        granularity: str = "clip",
        pooling: str | None = None,
        layers: Layers = -1,
        window: float | None = None,
        overlap: float = 0.0,
        hop_ms: int | None = None,
        pad_to: str | None = None,
    ) -> Features:
        """Encode an audio file of any length, sample rate and number of channels.

        A file longer than the model is encoded in windows, which are averaged for the
        clip and joined for frames; the memory does not depend on its length.

        Parameters
        ----------
        path
            Audio file: wav, flac, ogg, mp3 and others.
        granularity
            ``clip``: one vector `[D]`. ``frames``: one for each 160 ms `[T, D]`, the
            mean of its 8 patches. ``patches``: `[8T, D]`, from low to high frequencies,
            then in time.
        pooling
            Of a clip: ``cls`` (default), ``mean`` or ``both`` `[2D]`, see
            `eat.inference.results.pool`.
        layers
            A layer (block) by its index, negative from the end; a list of them or
            ``all`` adds a first axis `[L, ...]`.
        window
            Length of the windows in seconds, rounded down to whole frames; by default
            what the model was trained with.
        overlap
            Fraction of each window that overlaps the next one, in [0, 1). Frames of
            several windows are averaged.
        hop_ms
            Time between frames, a divisor of 160 that is a multiple of 10: passes over
            the file, each shifted by this, are interleaved.
        pad_to
            ``model``: shorter clips are padded to the model's length. ``clip``: each is
            encoded at its own length, in whole frames. By default as in training:
            ``clip`` for a model fine-tuned with masked padding, otherwise ``model``.

        Raises
        ------
        AudioError
            If the file is missing, or cannot be read as audio.
        ValueError
            If an option is wrong.
        """
        encoding = self.encoding(
            granularity, pooling, layers, window, overlap, hop_ms, pad_to
        )
        return encoding.encode([read_short(path, self.max_samples)])[0]

    def encode_batch(
        self,
        wavs: Waveforms,
        wav_lens: Lengths | None = None,
        sample_rate: int = SAMPLE_RATE,
        *,
        lengths: Lengths | None = None,
        granularity: str = "clip",
        pooling: str | None = None,
        layers: Layers = -1,
        window: float | None = None,
        overlap: float = 0.0,
        hop_ms: int | None = None,
        pad_to: str | None = None,
    ) -> Tensor:
        """Encode a batch of waveforms; each clip gives what it gives alone.

        Parameters
        ----------
        wavs
            Waveforms in [-1, 1], tensors or arrays: `[B, S]`, zero-padded at the end,
            `[S]`, or a list of clips of different lengths.
        wav_lens
            Lengths as fractions of S `[B]`, as in SpeechBrain.
        sample_rate
            Of the waveforms, in Hz.
        lengths
            Lengths in samples `[B]`, instead of `wav_lens`.
        granularity, pooling, layers, window, overlap, hop_ms, pad_to
            As in :meth:`encode_file`.

        Returns
        -------
        Tensor
            `[B, D]`; for frames and patches `[B, T, D]`, with T of the longest clip and
            zeros after the end of the others; `[B, L, ...]` with several layers. fp32
            on the model's device.

        Raises
        ------
        ValueError
            If an option is wrong or a clip is empty or has NaN or infinite samples.
        """
        encoding = self.encoding(
            granularity, pooling, layers, window, overlap, hop_ms, pad_to
        )
        clips = split_waveforms(wavs, wav_lens, lengths, sample_rate)
        recordings = [Recording([clip]) for clip in clips]
        values = encoding.run(recordings, self.device)
        if granularity == "clip":
            return torch.stack(values)
        time_first = [value.movedim(-2, 0) for value in values]
        return pad_sequence(time_first, batch_first=True).movedim(1, -2)

    def encode_files(
        self,
        paths: Iterable[str | os.PathLike[str]],
        batch_size: int | None = None,
        num_workers: int | None = None,
        on_error: str = "raise",
        **options: Any,
    ) -> Iterator[Features]:
        """Encode many files, several at a time; yield their features in order.

        Parameters
        ----------
        paths
            Audio files of any length; they are read as their features are asked for.
        batch_size
            Files that are encoded at a time; by default what suits model and device.
        num_workers
            Threads that read files ahead, as many as suit the machine by default.
        on_error
            ``raise``, or ``skip`` to log the unreadable files and continue.
        options
            As in :meth:`encode_file`.

        Raises
        ------
        AudioError
            If a file cannot be read, after the features of the files before it.
        ValueError
            If an option is wrong.
        """
        choose("on_error", on_error, ON_ERROR)
        one = isinstance(paths, str | bytes | os.PathLike)
        if one or not isinstance(paths, Iterable):
            raise ValueError(f"paths {paths!r}: must be a list (one file: encode_file)")
        if batch_size is not None:
            check_integer("batch_size", batch_size, 1)
        if num_workers is None:
            num_workers = default_threads()
        check_integer("num_workers", num_workers, 0)
        encoding = self.encoding(batch_size=batch_size, **options)
        read = partial(read_short, max_samples=self.max_samples)
        files = read_ahead(read, paths, num_workers, encoding.at_once)
        return encode_in_order(files, encoding, on_error == "skip")

    def tag_file(
        self,
        path: str | os.PathLike[str],
        top_k: int | None = 5,
        threshold: float | None = None,
        window: float | None = None,
        overlap: float = 0.0,
    ) -> list[Tag]:
        """Return the classes of an audio file with the highest scores.

        Parameters
        ----------
        path
            Audio file of any length.
        top_k
            Largest number of tags, or of tags in each window; None for all classes.
        threshold
            Lowest score of a tag.
        window
            Tag windows of this length in seconds, each with its start and end. By
            default the tags are of the whole file, their scores averaged over windows
            of the model's length.
        overlap
            As in :meth:`encode_file`.

        Raises
        ------
        AudioError
            If the file is missing, or cannot be read as audio.
        ValueError
            If the model has no classifier, or an option is wrong.
        """
        check_top(top_k, threshold)
        score = self.window_scores()
        windowing = self._windowing(window, overlap)
        recording = read_short(path, self.max_samples).recording()
        if window is None:
            scores = mean_scores([recording], windowing, score, self.windows_at_once)[0]
            parts = [(scores, (0.0, recording.samples / SAMPLE_RATE))]
        else:
            parts = [*window_scores(recording, windowing, score, self.windows_at_once)]
        return [
            tag
            for scores, times in parts
            for tag in top_tags(scores, times, self.labels, top_k, threshold)
        ]

    def tag_batch(
        self,
        wavs: Waveforms,
        wav_lens: Lengths | None = None,
        sample_rate: int = SAMPLE_RATE,
        *,
        lengths: Lengths | None = None,
        window: float | None = None,
        overlap: float = 0.0,
    ) -> Tensor:
        """Return the scores of all classes for each clip `[B, C]`.

        The parameters are those of :meth:`encode_batch`. Scores are averaged over the
        windows of a clip.
        """
        score = self.window_scores()
        windowing = self._windowing(window, overlap)
        clips = split_waveforms(wavs, wav_lens, lengths, sample_rate)
        recordings = [Recording([clip]) for clip in clips]
        return mean_scores(recordings, windowing, score, self.windows_at_once)

    def _windowing(self, *options: Any, **named: Any) -> Windowing:
        return Windowing.check(self.frontend.num_frames, *options, **named)

    def encoding(
        self,
        granularity: str = "clip",
        pooling: str | None = None,
        layers: Layers = -1,
        window: float | None = None,
        overlap: float = 0.0,
        hop_ms: int | None = None,
        pad_to: str | None = None,
        batch_size: int | None = None,
    ) -> Encoding:
        """Check the options of :meth:`encode_file`; return how recordings are encoded.

        `batch_size` windows are encoded at a time, by default what suits model and
        device. Raises `ValueError`, which names the wrong option.
        """
        if hop_ms is not None and granularity == "clip":
            raise ValueError(f"hop_ms {hop_ms}: only for frames and patches")
        readout = Readout.check(self.encoder, granularity, pooling, layers)
        if pad_to is None:
            pad_to = "clip" if self.mask_padding else "model"
        windowing = self._windowing(window, overlap, hop_ms, pad_to)
        encode = self.window_encoder(readout, windowing)
        return Encoding(readout, windowing, encode, batch_size or self.windows_at_once)
