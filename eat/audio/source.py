"""The bytes of an audio file, on disk or in memory, as the decoders want them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, RawIOBase
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from eat.errors import AudioError, AudioNotFoundError


class _Bytes(BytesIO):
    """Bytes in which a decoder may seek to before the beginning, as in a file."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte and return its position; stay if it is out of range."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


class Source:
    """An open audio file.

    Attributes
    ----------
    handle
        What libsndfile reads: a file descriptor, or a file without one.
    name
        The file in error messages.
    size
        Number of bytes.
    """

    def __init__(
        self, handle: int | BytesIO | SourceFile, name: object, size: int
    ) -> None:
        self.handle = handle
        self.name = name
        self.size = size

    @classmethod
    def of_bytes(cls, data: bytes, name: object) -> Source:
        """Make the source of a file in memory."""
        return cls(_Bytes(data), name, len(data))

    def part(self, start: int, end: int) -> Source:
        """Return a part, between two bytes, as a source of its own."""
        return Source(SourceFile(self, start, end), self.name, end - start)

    def seek(self, position: int) -> None:
        """Move to a byte, of a broken header perhaps: at most to the end."""
        position = min(position, self.size)
        if isinstance(self.handle, int):
            os.lseek(self.handle, position, os.SEEK_SET)
        else:
            self.handle.seek(position)

    def tell(self) -> int:
        """Return the position: how far a decoder has read."""
        if isinstance(self.handle, int):
            return os.lseek(self.handle, 0, os.SEEK_CUR)
        return self.handle.tell()

    def read(self, start: int, size: int | None = None) -> bytes:
        """Return bytes from a position, by default to the end of the file.

        Raises `AudioError` if the disk fails.
        """
        self.seek(start)
        size = max(0, self.size - start) if size is None else size
        if not isinstance(self.handle, int):
            return self.handle.read(size)
        parts = []
        try:
            while size and (part := os.read(self.handle, size)):
                parts.append(part)
                size -= len(part)
        except OSError as error:
            raise _unreadable(self.name, error) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def head(self, size: int) -> bytes:
        """Return the first bytes after an ID3v2 tag, which may precede any format."""
        start = self.read(0, max(size, 10))
        tag = tag_size(start)
        return self.read(tag, size) if tag else start[:size]


def tag_size(start: bytes) -> int:
    """Return the size of the ID3v2 tag in front of a file with these first bytes."""
    if not start.startswith(b"ID3"):
        return 0
    length = 0
    for byte in start[6:10]:
        length = length << 7 | byte & 127
    return 10 + length


class SourceFile(RawIOBase):
    """A source, or bytes of it, as a Python file without a name to guess from."""

    def __init__(self, source: Source, start: int = 0, end: int | None = None) -> None:
        self._source = source
        self._start = start
        self._size = (source.size if end is None else end) - start
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer; return how many."""
        size = max(0, min(len(buffer), self._size - self._position))
        data = self._source.read(self._start + self._position, size)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte and return its position."""
        base = (0, self._position, self._size)[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a file for reading.

    Raises `AudioError` if there is none, or it is a folder, empty, a pipe or a device.
    """
    try:
        str(path).encode()
        status = path.stat()
    except UnicodeEncodeError:
        raise AudioError(f"{path}: its name is not UTF-8 (rename it)") from None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # or a null byte
        raise AudioNotFoundError(f"{path}: no such file (check the path)") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if S_ISDIR(status.st_mode):
        raise AudioError(f"{path}: is a folder (give an audio file)")
    # Opening a pipe would wait for a writer, and a device has no end.
    if not S_ISREG(status.st_mode):
        raise AudioError(f"{path}: is not a regular file (give an audio file)")
    if status.st_size == 0:
        raise AudioError(f"{path}: 0 bytes (copy or download it again)")
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        yield Source(handle, path, status.st_size)
    finally:
        os.close(handle)


def _unreadable(name: object, error: OSError) -> AudioError:
    """Return the error of a file that the system cannot read."""
    return AudioError(
        f"{name}: cannot be read, {error.strerror} (check permissions and disk)"
    )
