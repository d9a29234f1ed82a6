"""The pages of an Ogg file: is it whole, and which streams does it contain?

Decoders skip a damaged page without an error, and stop at the end of the first stream
of a chained file (several files, one after another). The page headers show both.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from eat.audio.source import Source
from eat.errors import AudioError

MAGIC = b"OggS"
_HEADER = struct.Struct("<4sBBqIIIB")
_CHUNK = 2**16  # bytes
_FIRST, _LAST = 2, 4  # flags of a stream's first and last page
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class Link:
    """A part of an Ogg file that is a file of its own, between two bytes.

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


def split(source: Source) -> list[Link]:
    """Return the parts of a chained Ogg file, one part for an ordinary file.

    Raises `AudioError` if a page is damaged or missing, or a stream has no end.
    """
    name = source.name
    links: list[Link] = []
    streams: dict[int, _Page] = {}  # the last page of each unfinished stream
    beginning = False
    for page in _pages(source):
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


def _pages(source: Source) -> Iterator[_Page]:
    position = _find(source, 0)
    while 0 <= position < source.size:
        page = _page(source, position)
        if page is None:
            if _find(source, position + 4) < 0:
                return  # cut, or something else follows the last page
            raise AudioError(
                f"{source.name}: corrupt, the Ogg page at byte {position} is damaged "
                "(copy or download it again)"
            )
        yield page
        position = page.end


def _find(source: Source, start: int) -> int:
    """Return where the next page begins, -1 if nowhere."""
    while len(data := source.read(start, _CHUNK)) >= len(MAGIC):
        if (found := data.find(MAGIC)) >= 0:
            return start + found
        start += len(data) - len(MAGIC) + 1
    return -1


def _page(source: Source, start: int) -> _Page | None:
    """Return the page at a position, None if it is incomplete or damaged."""
    head = source.read(start, _HEADER.size + 255)
    if len(head) < _HEADER.size or not head.startswith(MAGIC):
        return None
    *_, flags, granule, serial, number, checksum, segments = _HEADER.unpack_from(head)
    body = _HEADER.size + segments
    size = body + sum(head[_HEADER.size : body])
    data = source.read(start, size)
    if len(data) < size or _crc(data[:22] + bytes(4) + data[26:]) != checksum:
        return None
    packet = data[body : body + 8]
    return _Page(start, start + size, flags, granule, serial, number, packet)


def _crc(data: bytes) -> int:
    """Return Ogg's checksum: zlib's polynomial with all bits in reverse order."""
    mirrored = zlib.crc32(data.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
