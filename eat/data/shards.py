"""Clips in tar shards, read by index.

Cluster storage copes badly with millions of small files; a shard has thousands of clips
in one file. The layout is WebDataset's: each clip is an audio file and a JSON file with
a common name. WebDataset reads shards sequentially; here a manifest has the address of
each clip, so that samplers, weights and exact resume work as they do with files.
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
_OPEN_SHARDS = 256  # per process


class Address(NamedTuple):
    """Where the audio of a clip is; as text ``shard.tar::offset+size:crc32``."""

    shard: str  # the tar file
    offset: int  # first byte
    size: int  # number of bytes
    crc32: int

    def __str__(self) -> str:
        return f"{self.shard}::{self.offset}+{self.size}:{self.crc32:08x}"


def parse_address(text: str) -> Address | None:
    """Parse an address; return None for the path of an ordinary file."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return None
    shard, offset, size, crc32 = match.groups()
    return Address(shard, int(offset), int(size), int(crc32, 16))


@lru_cache(maxsize=_OPEN_SHARDS)
def _open(shard: str) -> FileIO:
    """Open a shard; the least recently used ones are closed."""
    return open(shard, "rb", buffering=0)


def _read(address: Address) -> bytes:
    try:
        return _read_at(_open(address.shard), address)
    except OSError as error:
        # Replaced on network storage since it was opened, or too many open files.
        if error.errno not in (errno.ESTALE, errno.EMFILE):
            raise
    _open.cache_clear()
    return _read_at(_open(address.shard), address)


def _read_at(file: FileIO, address: Address) -> bytes:
    if hasattr(os, "pread"):
        # Not seek and read: forked data workers share the file position.
        return os.pread(file.fileno(), address.size, address.offset)
    file.seek(address.offset)  # Windows, where each worker opens its own
    return file.read(address.size)


def read_member(address: Address) -> bytes:
    """Read the audio file at an address and verify its checksum.

    Raises `AudioNotFoundError` if there is no such shard, `AudioError` if it cannot be
    read, or the bytes have changed since they were written.
    """
    try:
        data = _read(address)
    except FileNotFoundError:
        raise AudioNotFoundError(f"{address}: no such shard (check the path)") from None
    except OSError as error:
        raise AudioError(
            f"{address}: cannot be read, {error.strerror} "
            "(check the permissions and the disk)"
        ) from None
    if len(data) < address.size or zlib.crc32(data) != address.crc32:
        raise AudioError(
            f"{address}: corrupt or truncated (tools/pack_shards.py --verify lists all "
            "such shards; delete them and pack again)"
        )
    return data


def read_clip(
    path: str, sample_rate: int = 16000, max_seconds: float | None = None
) -> Tensor:
    """Read an audio file, or a shard's clip by its address, as `read_audio` does."""
    address = parse_address(path)
    if address is None:
        return read_audio(path, sample_rate, max_seconds)
    return decode_audio(read_member(address), path, sample_rate, max_seconds)
