"""Read audio files as mono waveforms; an error says what is wrong with the file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from eat.audio import libsndfile
from eat.audio.checks import join_blocks
from eat.audio.clips import decode_part, log_warnings, parts_of, warnings_of
from eat.audio.decoding import Clip, join_clip, last_of
from eat.audio.resampling import resample
from eat.audio.source import Source, open_source, tag_size
from eat.errors import AudioError

# Lower case. Those after .mp3 need PyAV: without it, reading such a file says so.
AUDIO_SUFFIXES = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".mp1", ".mp2", ".mp3"),
    *(".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".aac", ".mka", ".mkv", ".webm", ".wma"),
    *(".ac3", ".amr", ".ape", ".avi", ".spx", ".tta", ".wv"),
)
_FILES_PER_TASK = 64


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What is in an audio file.

    Attributes
    ----------
    sample_rate
        Samples per second; in a chained Ogg file, of the first part.
    num_frames
        Samples per channel.
    channels
        Number of channels.
    warnings
        What is odd about it, each ``kind: details``; see `eat.audio.checks`. Of the
        samples, only the beginning is looked at, up to the first sound.
    """

    sample_rate: int
    num_frames: int
    channels: int
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.num_frames / self.sample_rate


def inspect_audio(path: str | os.PathLike[str]) -> AudioInfo:
    """Check an audio file: decode its beginning and its end as `read_audio` does.

    A file whose header does not tell the length is decoded as a whole.

    Parameters
    ----------
    path
        An audio file, see `read_audio`.

    Returns
    -------
    AudioInfo
        Sample rate, number of frames, channels and warnings.

    Raises
    ------
    AudioError
        If the file is missing, not a regular file, empty, not audio, without samples,
        corrupt, or (except MP3) shorter than its header declares; also if a sample is
        NaN, infinite or absurdly large.
    """
    with open_source(Path(path)) as source:
        clips = [
            last_of(decode_part(part, None, libsndfile.inspect))
            for part in parts_of(source)
        ]
    rate = clips[0].sample_rate
    frames = sum(clip.frames * rate / clip.sample_rate for clip in clips)
    return AudioInfo(rate, round(frames), clips[0].channels, warnings_of(clips))


def _inspect_each(paths: Sequence[str]) -> list[AudioInfo | AudioError]:
    results: list[AudioInfo | AudioError] = []
    for path in paths:
        try:
            results.append(inspect_audio(path))
        except AudioError as error:
            results.append(error)
    return results


def inspect_many(paths: Sequence[str]) -> Iterator[AudioInfo | AudioError]:
    """Inspect many files in parallel threads.

    Parameters
    ----------
    paths
        Audio files.

    Yields
    ------
    AudioInfo or AudioError
        For each path, in order, what `inspect_audio` returns or raises.
    """
    starts = range(0, len(paths), _FILES_PER_TASK)
    tasks = [paths[start : start + _FILES_PER_TASK] for start in starts]
    # Threads mostly wait for the disk, so more of them than cores.
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        for results in pool.map(_inspect_each, tasks):
            yield from results


def read_audio(
    path: str | os.PathLike[str],
    sample_rate: int = 16000,
    max_seconds: float | None = None,
) -> Tensor:
    """Read an audio file as a mono waveform.

    Channels are averaged, then resampled (windowed sinc, torchaudio's defaults). The
    official code does it in the opposite order, which is equivalent since both are
    linear.

    Parameters
    ----------
    path
        A file of one of `AUDIO_SUFFIXES`; what counts is its content. libsndfile reads
        it, and where it cannot, or not to the end, FFmpeg does if PyAV is installed.
    sample_rate
        Sample rate of the result in Hz.
    max_seconds
        Read only the first seconds; the rest of the file is not decoded.

    Returns
    -------
    Tensor
        Waveform `[S]`, float32, nominally in [-1, 1].

    Raises
    ------
    AudioError
        As `inspect_audio`.
    """
    return read_with_warnings(path, sample_rate, max_seconds)[0]


def read_with_warnings(
    path: str | os.PathLike[str],
    sample_rate: int = 16000,
    max_seconds: float | None = None,
) -> tuple[Tensor, tuple[str, ...]]:
    """Read an audio file, see `read_audio`; also return what is odd about it.

    The warnings, each ``kind: details``, are about the whole file and about all samples
    that were read, before they were resampled.
    """
    with open_source(Path(path)) as source:
        return _read(source, sample_rate, max_seconds)


def decode_audio(
    data: bytes, name: str, sample_rate: int = 16000, max_seconds: float | None = None
) -> Tensor:
    """Decode the bytes of an audio file to a mono waveform `[S]`, see `read_audio`.

    Parameters
    ----------
    data
        Content of the file.
    name
        Name of the file in error messages.
    sample_rate, max_seconds
        As in `read_audio`.

    Raises
    ------
    AudioError
        As `read_audio`.
    """
    if not data:
        raise AudioError(f"{name}: 0 bytes (copy or download it again)")
    # In memory, libsndfile reads WAV and AIFF from the wrong place after a tag.
    source = Source.of_bytes(data[tag_size(data) :] or data, name)
    return _read(source, sample_rate, max_seconds)[0]


def _read(
    source: Source, sample_rate: int, max_seconds: float | None
) -> tuple[Tensor, tuple[str, ...]]:
    # One second more, so that the resampling filter does not reach the cut.
    seconds = None if max_seconds is None else max_seconds + 1
    clips: list[Clip] = []
    for part in parts_of(source):
        clip = join_clip(decode_part(part, seconds, libsndfile.decode))
        clips.append(clip)
        if seconds is not None:
            seconds -= clip.frames / clip.sample_rate
            if seconds <= 0:
                break
    warnings = warnings_of(clips)
    log_warnings(source, warnings)
    wav = join_blocks(resample(c.wav, c.sample_rate, sample_rate) for c in clips)
    if max_seconds is not None:
        wav = wav[: round(max_seconds * sample_rate)]
    return wav, warnings
