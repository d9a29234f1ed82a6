"""What the decoders have in common: their result, and the checks of a header."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from eat.audio.checks import SignalCheck, join_blocks
from eat.audio.source import Source
from eat.errors import AudioError

# A program that writes to a pipe does not know the size: it declares 2 or 4 GiB, and
# SoX in AIFF 16 MiB less.
_UNKNOWN_SIZE = 0x7F000000
# Some programs declare the size of the whole file as that of the samples.
_LONGEST_HEADER = 4096
_MIN_RATE, _MAX_RATE = 1000, 768_000  # Hz
SIZE_UNKNOWN = "size unknown: not in the header of the file, which is read to its end"


class NotDecodableError(Exception):
    """Another decoder may read this file; the message says why this one does not."""


class Clip(NamedTuple):
    """A block of an audio file, decoded, and what is known of the file by then.

    `wav` is mono `[S]`, at the file's own rate in Hz; `frames` is the length of the
    whole file, if it is known. `warnings` are about the file, `check`, which the blocks
    of a decoder share, knows those about its samples. A decoder's last block is empty
    and knows everything.
    """

    sample_rate: int
    channels: int
    frames: int
    check: SignalCheck
    warnings: tuple[str, ...] = ()
    wav: Tensor = torch.empty(0)


Decode = Callable[[Source, float | None], Iterator[Clip]]


def last_of(blocks: Iterable[Clip]) -> Clip:
    """Decode to the end; return the last block."""
    return deque(blocks, maxlen=1).pop()


def join_clip(blocks: Iterable[Clip]) -> Clip:
    """Decode to the end; return the last block, with the samples of all.

    Without those of a decoder that gave up, after which another one started again.
    """
    kept: list[Clip] = []
    for block in blocks:
        if kept and block.check is not kept[-1].check:
            kept.clear()
        kept.append(block)
    return kept[-1]._replace(wav=join_blocks(block.wav for block in kept))


def check_format(rate: int, channels: int, name: object) -> None:
    """Raise `AudioError` if nobody records sound in such a format."""
    if not _MIN_RATE <= rate <= _MAX_RATE:
        raise AudioError(
            f"{name}: its sample rate is {rate} Hz, {_MIN_RATE} to {_MAX_RATE} Hz are "
            "possible (repair its header or export it again)"
        )
    if channels < 1:
        raise AudioError(f"{name}: has no channels (export it again)")


def check_size(declared: int, found: int, source: Source) -> tuple[str, ...]:
    """Compare the bytes of samples that a header declares with those in the file.

    Raises `AudioError` if the file is truncated; returns warnings.
    """
    if found and (declared == 0 or declared >= _UNKNOWN_SIZE > found):
        return (SIZE_UNKNOWN,)
    if declared > found + min(_LONGEST_HEADER, source.size - found + 8):
        raise AudioError(
            f"{source.name}: truncated, its header declares {declared} bytes of audio, "
            f"the file contains {found} (copy or download it again)"
        )
    return ()
