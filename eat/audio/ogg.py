"""The pages of an Ogg file: is it whole, and which streams does it contain?

Decoders skip a damaged page without an error, and stop at the end of the first stream
of a chained file (several files, one after another). The page headers show both.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from eat.errors import AudioError

MAGIC = b"OggS"
_HEADER = struct.Struct("<4sBBqIIIB")
_FIRST, _LAST = 2, 4  # flags of a stream's first and last page
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class Link:
    """A part of an Ogg file that is a file of its own: ``data[start:end]``.

    `codecs` has the beginning of each stream's first packet.
    """

    start: int
    end: int = 0
    codecs: list[bytes] = field(default_factory=list)

    @property
    def simple(self) -> bool:
        """Whether it is what libsndfile reads: one stream, Vorbis or Opus."""
        known = (b"\x01vorbis", b"OpusHead")
        return len(self.codecs) == 1 and self.codecs[0].startswith(known)


@dataclass(frozen=True)
class _Page:
    start: int
    end: int
    flags: int
    granule: int
    serial: int
    number: int
    packet: bytes  # its first bytes


def split(data: bytes, name: object) -> list[Link]:
    """Return the parts of a chained Ogg file, one part for an ordinary file.

    Raises `AudioError` if a page is damaged or missing, or a stream has no end.
    """
    links: list[Link] = []
    streams: dict[int, _Page] = {}  # the last page of each unfinished stream
    beginning = False
    for page in _pages(data, name):
        if page.flags & _FIRST:
            if not beginning:
                _require_end(streams, name)
                streams = {}
                links.append(Link(page.start))
            links[-1].codecs.append(page.packet)
        beginning = bool(page.flags & _FIRST)
        before = streams.get(page.serial)
        # The page after the headers of a recorded broadcast may have any number.
        if before and before.granule > 0 and page.number != before.number + 1:
            raise AudioError(
                f"{name}: corrupt, its Ogg pages {before.number + 1} to "
                f"{page.number - 1} are missing (copy or download it again)"
            )
        streams[page.serial] = page
        if links:
            links[-1].end = page.end
    _require_end(streams, name)
    return links


def _require_end(streams: dict[int, _Page], name: object) -> None:
    if any(not page.flags & _LAST for page in streams.values()):
        raise AudioError(
            f"{name}: truncated, the Ogg stream has no end (copy or download it again)"
        )


def _pages(data: bytes, name: object) -> Iterator[_Page]:
    position = data.find(MAGIC)
    while 0 <= position < len(data):
        page = _page(data, position)
        if page is None:
            if data.find(MAGIC, position + 4) < 0:
                return  # cut, or something else follows the last page
            raise AudioError(
                f"{name}: corrupt, the Ogg page at byte {position} is damaged "
                "(copy or download it again)"
            )
        yield page
        position = page.end


def _page(data: bytes, start: int) -> _Page | None:
    """Return the page at a position, None if it is incomplete or damaged."""
    if len(data) < start + _HEADER.size or data[start : start + 4] != MAGIC:
        return None
    *_, flags, granule, serial, number, checksum, segments = _HEADER.unpack_from(
        data, start
    )
    body = start + _HEADER.size + segments
    end = body + sum(data[start + _HEADER.size : body])
    content = data[start : start + 22] + bytes(4) + data[start + 26 : end]
    if end > len(data) or _crc(content) != checksum:
        return None
    return _Page(start, end, flags, granule, serial, number, data[body : body + 8])


def _crc(data: bytes) -> int:
    """Return Ogg's checksum: zlib's polynomial with all bits in reverse order."""
    mirrored = zlib.crc32(data.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
