"""Decode with libsndfile, which reads nearly every file that people have.

Where it cannot, or would stop before the end of the sound, `NotDecodableError` says so
and another decoder has to be used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import soundfile

from eat.audio.checks import SignalCheck
from eat.audio.decoding import (
    SIZE_UNKNOWN,
    Clip,
    NotDecodableError,
    check_format,
    check_size,
    last_of,
)
from eat.audio.source import Source
from eat.errors import AudioError

# libsndfile reduces the number of frames of a file that ends too early without an
# error; only its log shows it. The sizes are in bytes, and for RF64 in frames.
_SIZES = re.compile(
    r"^ *(?:data|SSND|riff|Data Size) *: (?P<declared>\d+) \(should be (?P<found>\d+)\)"
    r"|frame count (?P<frames>\d+) does not match value from 'ds64' chunk of "
    r"(?P<ds64>\d+)",
    re.MULTILINE,
)
_UNKNOWN_FRAMES = 2**36 - 1  # FLAC's largest number
_MP3_HEADER = re.compile(rb"Xing|Info|VBRI")
_MP3_FRAMES_PER_BYTE = 100  # at 8 kbit/s it is 24
_INSPECTED = 0.25  # seconds
_BLOCK = 2**20  # samples, 4 MB


class _SoundFile(soundfile.SoundFile):
    """Without soundfile's seek after each read, which is not exact in Ogg and MP3."""

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek."""
        return False


def decode(source: Source, seconds: float | None) -> Iterator[Clip]:
    """Decode the first seconds, by default all, block after block.

    Raises
    ------
    AudioError
        If the file is truncated or corrupt.
    NotDecodableError
        If libsndfile cannot read it, or not to the end.
    """
    check = SignalCheck(source.name)
    with _open(source) as (file, warnings):
        wanted = file.frames
        if seconds is not None:
            wanted = min(wanted, int(seconds * file.samplerate))
        clip = Clip(file.samplerate, file.channels, file.frames, check, warnings)
        for block in _blocks(file, wanted):
            yield clip._replace(wav=check.mix(block))
        if check.samples < wanted:
            _require_estimate(file, source)
            if not check.samples:
                raise NotDecodableError("decoding fails at its first sample")
            warnings += _missing(file, check.samples, source)
            clip = clip._replace(frames=check.samples, warnings=warnings)
        if wanted == file.frames:
            _require_end(file, source)
        yield clip


def inspect(source: Source, seconds: float | None = None) -> Iterator[Clip]:
    """Decode the beginning, up to the first sound, and the last sample; MP3 as a whole.

    Yields what `decode` yields last, and raises what it raises.
    """
    check = SignalCheck(source.name)
    with _open(source) as (file, warnings):
        clip = Clip(file.samplerate, file.channels, file.frames, check, warnings)
        beginning = math.ceil(_INSPECTED * file.samplerate)
        # Only reading gives the length of an MP3 file, and what is wrong with others.
        if file.format == "MP3" or file.frames <= beginning or not _has_last(file):
            yield last_of(decode(source, seconds))
            return
        _require_end(file, source)
    # Opened again: seeking in Ogg is exact only before anything is decoded.
    with _open(source) as (file, _):
        for block in _blocks(file, file.frames, beginning):
            check.mix(block)
            if check.audible:
                break
    yield clip


def decode_inspected(source: Source, seconds: float | None) -> Iterator[Clip]:
    """Inspect the file, then decode it: if that is impossible, before the first block.

    Raises what `decode` raises.
    """
    last_of(inspect(source))
    yield from decode(source, seconds)


@contextmanager
def _open(source: Source) -> Iterator[tuple[soundfile.SoundFile, tuple[str, ...]]]:
    source.seek(0)
    try:
        file = _SoundFile(source.handle, closefd=False)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".").removeprefix("Error : ")
        # Of unknown formats it says either; the last one it tries is Sound Designer.
        if error.code == 1 or "resource fork" in reason:
            reason = "unknown format"
        raise NotDecodableError(reason) from None
    with file:
        warnings: tuple[str, ...] = ()
        for match in _SIZES.finditer(log := file.extra_info):
            warnings += _compare(match, source)
        check_format(file.samplerate, file.channels, source.name)
        _require_trusted(file, log, source)
        yield file, tuple(dict.fromkeys(warnings))


def _compare(match: re.Match[str], source: Source) -> tuple[str, ...]:
    """Judge a line of the log about a wrong size."""
    if match["declared"]:
        return check_size(int(match["declared"]), int(match["found"]), source)
    # RF64: the frames as they would be in the same number of bytes.
    found, declared = int(match["frames"]), int(match["ds64"])
    if not 0 < declared < _UNKNOWN_FRAMES:
        return (SIZE_UNKNOWN,)
    return check_size(source.size * declared // max(found, 1), source.size, source)


def _require_trusted(file: soundfile.SoundFile, log: str, source: Source) -> None:
    """Raise `NotDecodableError` if the length, or the type of samples, is not known."""
    unknown = file.frames >= _UNKNOWN_FRAMES
    if file.format == "MP3":
        unknown = file.frames > source.size * _MP3_FRAMES_PER_BYTE
    if unknown:
        raise NotDecodableError("its length is not in its header")
    # It ignores what kind of samples an extensible W64 header names.
    if file.format == "W64" and "EXTENSIBLE" in log and "format : PCM" not in log:
        raise NotDecodableError("W64 with an extensible header")
    if file.frames == 0 and source.size > source.tell() > 0:
        raise NotDecodableError("0 samples")


def _blocks(
    file: soundfile.SoundFile, wanted: int, first: int | None = None
) -> Iterator[np.ndarray]:
    """Yield the first frames `[n, C]`, up to where decoding fails.

    They are int16 if the file's samples are, since libsndfile converts slowly, or else
    float32. `first` is the size of the first block. Memory is never allocated for a
    length that a header only declares.
    """
    size = max(_BLOCK // file.channels, 1)
    # In SDS files, samples of 16 bits have more.
    int16 = file.subtype == "PCM_16" and file.format != "SDS"
    dtype = "int16" if int16 else "float32"
    while wanted > 0:
        frames = min(wanted, first or size)
        try:
            block = file.read(frames, dtype, always_2d=True)
        except soundfile.LibsndfileError:
            return
        yield block
        if len(block) < frames:
            return
        wanted -= frames
        first = None


def _has_last(file: soundfile.SoundFile) -> bool:
    try:
        file.seek(file.frames - 1)
        return len(file.read(1, dtype="float32")) == 1
    except soundfile.LibsndfileError:
        return False


def _require_end(file: soundfile.SoundFile, source: Source) -> None:
    """Raise `NotDecodableError` if sound follows after the last declared sample.

    The header of an MP3 file only estimates the length, or is that of the first of
    several joined files; a FLAC file may be longer than it says, too.
    """
    _require_whole_block(file)
    position = source.tell()
    if position >= source.size or file.format not in ("MP3", "FLAC"):
        return
    if file.format == "MP3" and not _is_sound(source.read(position), source.name):
        return  # a tag
    raise NotDecodableError(f"it is longer than the {file.frames} samples it declares")


def _is_sound(data: bytes, name: object) -> bool:
    rest = Source.of_bytes(data, name)
    try:
        with _SoundFile(rest.handle) as file:
            return len(file.read(1, dtype="float32")) > 0
    except soundfile.LibsndfileError:
        return False


def _missing(file: soundfile.SoundFile, found: int, source: Source) -> tuple[str, ...]:
    """Return a warning if an MP3 file ends before the end that it declares."""
    if not _counts_frames(source) or found > file.frames - 3 * 1152:
        return ()
    return (f"truncated: {found} samples of {file.frames} that its header declares",)


def _counts_frames(source: Source) -> bool:
    """Return whether an MP3 file has a header with the number of its frames."""
    return bool(_MP3_HEADER.search(source.head(4096)))


def _require_estimate(file: soundfile.SoundFile, source: Source) -> None:
    """Raise `AudioError` for a file that ends early if its length is no estimate."""
    _require_whole_block(file)
    if not file.subtype.startswith(("MPEG", "GSM")):
        raise AudioError(
            f"{source.name}: corrupt or truncated, decoding fails before the "
            f"{file.frames} samples of its header (copy or download it again, or "
            "remove it)"
        )


def _require_whole_block(file: soundfile.SoundFile) -> None:
    """Raise `NotDecodableError` if the last block is incomplete, so noise.

    The only byte of one in GSM 6.10 may be padding.
    """
    if "short read" in file.extra_info:
        raise NotDecodableError("its last block is incomplete")
