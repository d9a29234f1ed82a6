"""Decode with FFmpeg's libraries (PyAV) what libsndfile cannot read, or not whole."""

from __future__ import annotations

import importlib.util
import math
import struct
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from torch import Tensor

from eat.audio.checks import SignalCheck, regroup
from eat.audio.decoding import Clip, NotDecodableError, check_format, check_size
from eat.audio.source import Source, SourceFile
from eat.errors import AudioError

# Not playlists and scripts: they may name other files, or addresses on the network.
_FORMATS = (
    "wav,w64,aiff,au,caf,flac,ogg,mp3,mov,m4a,matroska,webm,aac,asf,"
    "ac3,eac3,amr,ape,avi,mpegts,tta,wv"
)
_INDEXED = {
    "mov",
    "matroska",
    "webm",
    "ape",
    "avi",
    "tta",
    "wv",
}  # that know their duration
_CUT_SECONDS = 0.05
_BLOCK = 2**20  # samples


def available() -> bool:
    """Return whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def decode(source: Source, seconds: float | None) -> Iterator[Clip]:
    """Decode the first seconds, by default all, block after block.

    Raises
    ------
    AudioError
        If the file is truncated or corrupt.
    NotDecodableError
        If FFmpeg cannot read it.
    """
    import av

    warnings = _check_chunks(source)
    options = {"format_whitelist": _FORMATS}
    try:
        file = SourceFile(source)
        with av.open(file, metadata_errors="ignore", options=options) as container:
            if not container.streams.audio:
                raise NotDecodableError("no sound in it")
            yield from _decode(container, source, seconds, warnings)
    except AudioError:  # a ValueError, too
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise NotDecodableError(str(error)) from None


def _decode(
    container: Any, source: Source, seconds: float | None, warnings: tuple[str, ...]
) -> Iterator[Clip]:
    check = SignalCheck(source.name)
    blocks = _blocks(container, container.streams.audio[0], source)
    clip = Clip(0, 0, 0, check, warnings)
    if first := next(blocks, None):
        samples, rate = first
        clip = clip._replace(sample_rate=rate, channels=samples.shape[1])
        check_format(rate, clip.channels, source.name)
        limit = math.inf if seconds is None else int(seconds * rate)
        mixed = _mix(chain([first], blocks), check, limit)
        for wav in regroup(mixed, _BLOCK):
            yield clip._replace(frames=check.samples, wav=wav)
    yield clip._replace(frames=check.samples)


def _mix(
    blocks: Iterable[tuple[np.ndarray, int]], check: SignalCheck, limit: float
) -> Iterator[Tensor]:
    for samples, _ in blocks:
        yield check.mix(samples)
        if check.samples >= limit:
            return


def _blocks(
    container: Any, stream: Any, source: Source
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the samples of a stream `[n, C]` and their rate, always the first one.

    As FFmpeg's program does, later changes of rate or channels are converted.
    """
    import av

    resampler = None
    format_ = rate = layout = None
    end = 0.0
    for packet in container.demux(stream):
        try:
            decoded = packet.decode()
        except av.error.EOFError:
            decoded = []
        except av.error.FFmpegError:
            # Between joined MP3 files there may be tags; a single byte is padding.
            if container.format.name == "mp3" or (end and packet.size == 1):
                continue
            raise AudioError(
                f"{source.name}: corrupt or truncated, decoding fails in the middle "
                "(copy or download it again, or remove it)"
            ) from None
        for frame in decoded:
            found = frame.format.name, frame.sample_rate, frame.layout.name
            if resampler is None or found != format_:
                if resampler:
                    yield from _packed(resampler.resample(None), rate)
                rate = rate or frame.sample_rate
                layout = layout or frame.layout
                format_ = found
                # Not planar: PyAV reads beyond the end of eight planes.
                resampler = av.AudioResampler("flt", layout, rate)
            yield from _packed(resampler.resample(frame), rate)
            end = (frame.time or end) + frame.samples / frame.sample_rate
    if resampler:
        _require_duration(container, stream, end, source)
        yield from _packed(resampler.resample(None), rate)


def _packed(frames: list[Any], rate: int | None) -> Iterator[tuple[np.ndarray, int]]:
    for frame in frames:
        if frame is not None and frame.samples:
            samples = frame.to_ndarray().copy()
            yield samples.reshape(frame.samples, -1), int(rate or 0)


def _require_duration(container: Any, stream: Any, end: float, source: Source) -> None:
    """Raise `AudioError` if the last sample's time is before the end of the index.

    The number of samples may be smaller: a recorded call has gaps.
    """
    if not _INDEXED & set(container.format.name.split(",")):
        return
    if stream.duration is not None:
        end_time = stream.duration + (stream.start_time or 0)
        declared = float(end_time * stream.time_base)
    elif container.duration is not None and len(container.streams) == 1:
        declared = container.duration / 1e6
    else:
        return
    if end < declared - _CUT_SECONDS:
        raise AudioError(
            f"{source.name}: truncated, its header declares {declared:.2f} s, the file "
            f"contains {end:.2f} s (copy or download it again)"
        )


def _check_chunks(source: Source) -> tuple[str, ...]:
    """Compare the declared size of the samples in WAV and CAF files, see `check_size`.

    FFmpeg does not say that such a file is truncated.
    """
    head = source.read(0, 4)
    if head in (b"RIFF", b"RF64", b"caff"):
        header, start = ("<4sI", 12) if head != b"caff" else (">4sq", 8)
        length = struct.calcsize(header)
        while len(chunk := source.read(start, length)) == length:
            kind, size = struct.unpack(header, chunk)
            start += length
            if kind == b"data":
                return check_size(max(size, 0), source.size - start, source)
            if size < 0:
                break
            start += size + (size % 2 if head != b"caff" else 0)
    return ()
