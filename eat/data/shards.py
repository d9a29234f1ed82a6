"""Clips in tar shards, read by index.

Millions of small files are more than most cluster storage bears; a shard holds
thousands of clips in one. Its layout is WebDataset's: of each clip a sound file and a
JSON file with a common name. Where that reads a shard from its beginning to its end, a
manifest here holds the address of each clip, so that samplers, weights and the exact
resume work as they do on files.
"""

from __future__ import annotations

import errno
import os
import re
import zlib
from functools import lru_cache
from io import FileIO
from typing import NamedTuple

from torch import Tensor

from eat.audio.io import decode_audio, read_audio
from eat.errors import AudioError, AudioNotFoundError

_ADDRESS = re.compile(r"(.+\.tar)::(\d+)\+(\d+):([0-9a-f]{8})")
_OPEN_SHARDS = 256  # of each process


class Address(NamedTuple):
    """Where the sound of a clip lies; as text ``shard.tar::offset+size:crc32``.

    Attributes
    ----------
    shard : str
        The tar file.
    offset, size : int
        First byte and number of bytes.
    crc32 : int
        Checksum of these bytes.
    """

    shard: str
    offset: int
    size: int
    crc32: int

    def __str__(self) -> str:
        return f"{self.shard}::{self.offset}+{self.size}:{self.crc32:08x}"


def parse_address(text: str) -> Address | None:
    """Read an address.

    Parameters
    ----------
    text : str
        From a manifest.

    Returns
    -------
    Address or None
        None if it is the path of a file of its own.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return None
    shard, offset, size, crc32 = match.groups()
    return Address(shard, int(offset), int(size), int(crc32, 16))


@lru_cache(maxsize=_OPEN_SHARDS)
def _open(shard: str) -> FileIO:
    """Open a shard; it is closed when it is the one not used for the longest time."""
    return open(shard, "rb", buffering=0)


def _read(address: Address) -> bytes:
    try:
        # At an offset: forked data workers share the descriptor and its position.
        return os.pread(_open(address.shard).fileno(), address.size, address.offset)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    _open.cache_clear()  # replaced on network storage since it was opened
    return os.pread(_open(address.shard).fileno(), address.size, address.offset)


def read_member(address: Address) -> bytes:
    """Read the bytes at an address and check them.

    Parameters
    ----------
    address : Address
        Where they are.

    Returns
    -------
    bytes
        A sound file.

    Raises
    ------
    AudioNotFoundError
        If there is no such shard.
    AudioError
        If it cannot be read, or the bytes are not what was written.
    """
    try:
        data = _read(address)
    except FileNotFoundError:
        raise AudioNotFoundError(f"{address}: no such shard (check the path)") from None
    except OSError as error:
        raise AudioError(
            f"{address}: cannot be read, {error.strerror} "
            "(check your rights and the disk)"
        ) from None
    if len(data) < address.size or zlib.crc32(data) != address.crc32:
        raise AudioError(
            f"{address}: damaged or truncated since it was written (tools/"
            "pack_shards.py --verify names all such shards; remove and pack them again)"
        )
    return data


def read_clip(
    path: str, sample_rate: int = 16000, max_seconds: float | None = None
) -> Tensor:
    """Read a clip from a file of its own or from a shard.

    Parameters
    ----------
    path : str
        Path of a sound file, or an address.
    sample_rate : int
        Rate of the result, in Hz.
    max_seconds : float, optional
        Keep the first seconds only.

    Returns
    -------
    Tensor
        `[S]` float32, mono.

    Raises
    ------
    AudioError
        As `eat.audio.io.read_audio` and `read_member`.
    """
    address = parse_address(path)
    if address is None:
        return read_audio(path, sample_rate, max_seconds)
    return decode_audio(read_member(address), path, sample_rate, max_seconds)
