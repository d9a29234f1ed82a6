"""Read an audio file of any length block by block, in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from torch import Tensor

from eat.audio import libsndfile
from eat.audio.checks import regroup
from eat.audio.clips import decode_part, log_warnings, parts_of, warnings_of
from eat.audio.resampling import BlockResampler
from eat.audio.source import Source, open_source


def read_blocks(
    path: str | os.PathLike[str], sample_rate: int = 16000, block_seconds: float = 30.0
) -> Iterator[Tensor]:
    """Read an audio file as mono blocks which, joined, are what `read_audio` returns.

    An MP3 file is decoded twice, since nothing else tells whether libsndfile reads it
    to the end.

    Parameters
    ----------
    path
        An audio file, see `read_audio`.
    sample_rate
        Sample rate of the blocks in Hz.
    block_seconds
        Duration of a block; the last one may be shorter.

    Yields
    ------
    Tensor
        Waveform `[S]`, float32, nominally in [-1, 1].

    Raises
    ------
    AudioError
        As `read_audio`, but what is wrong in the middle or at the end of a file may be
        found after the blocks before it.
    ValueError
        If a block is shorter than a sample.
    """
    size = round(block_seconds * sample_rate)
    if size < 1:
        raise ValueError(f"block_seconds {block_seconds}: must be at least a sample")
    with open_source(Path(path)) as source:
        for block in regroup(_resampled(source, sample_rate), size):
            yield block.clone()  # not a view of a larger one


def _resampled(source: Source, sample_rate: int) -> Iterator[Tensor]:
    clips = []
    for part in parts_of(source):
        blocks = decode_part(part, None, libsndfile.decode_inspected)
        first = next(blocks)
        resampler = BlockResampler(first.sample_rate, sample_rate)
        for clip in chain([first], blocks):
            yield resampler(clip.wav)
        yield resampler.finish()
        clips.append(clip)
    log_warnings(source, warnings_of(clips))
