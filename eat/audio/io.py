"""Read audio files as mono waveforms; an error says what is wrong with the file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from stat import S_ISDIR

import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from eat.errors import AudioError, AudioNotFoundError

# Lower case. Those after .mp3 need PyAV: without it, reading such a file says so.
AUDIO_SUFFIXES = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".mp1", ".mp2", ".mp3"),
    *(".m4a", ".mp4", ".aac", ".mka", ".webm", ".wma"),
)

# What libsndfile logs about a file that ends too early. It reduces the number of frames
# without an error; only the log shows it.
_DATA_CHUNK = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_OGG_CUT = "lacks an end-of-stream bit"
# A program that writes WAV to a pipe does not know the size and declares 2 or 4 GiB.
_UNKNOWN_SIZE = 0x7FFF0000
_FILES_PER_TASK = 64


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Contents of an audio file's header.

    Attributes
    ----------
    sample_rate
        Samples per second.
    num_frames
        Samples per channel; an estimate for MP3 files without a Xing header.
    channels
        Number of channels.
    """

    sample_rate: int
    num_frames: int
    channels: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.num_frames / self.sample_rate


def _check_not_truncated(file: soundfile.SoundFile, path: Path | str) -> None:
    """Raise `AudioError` if the header declares more audio than the file contains."""
    chunk = _DATA_CHUNK.search(file.extra_info)
    declared, found = map(int, chunk.groups()) if chunk else (0, 0)
    if found < declared < _UNKNOWN_SIZE:
        raise AudioError(
            f"{path}: truncated, its header declares {declared} bytes of audio, the "
            f"file contains {found} (copy or download it again)"
        )
    if _OGG_CUT in file.extra_info:
        raise AudioError(
            f"{path}: truncated, the Ogg stream has no end (copy or download it again)"
        )


def _check_end(file: soundfile.SoundFile, path: Path) -> None:
    """Raise `AudioError` if a FLAC file is truncated, which its header cannot show."""
    if file.format != "FLAC":
        return
    try:
        file.seek(file.frames - 1)
        found = len(file.read(1, dtype="int16"))
    except soundfile.LibsndfileError:
        found = 0
    if not found:
        raise AudioError(
            f"{path}: truncated, its header declares {file.frames} samples and the "
            "last is missing (copy or download it again)"
        )


def _open(path: Path) -> soundfile.SoundFile:
    """Open a file for reading and check its header."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise AudioNotFoundError(f"{path}: no such file (check the path)") from None
    except OSError as error:
        raise AudioError(
            f"{path}: cannot be read, {error.strerror} (check permissions and disk)"
        ) from None
    if S_ISDIR(status.st_mode):
        raise AudioError(f"{path}: is a folder (give an audio file)")
    if status.st_size == 0:
        raise AudioError(f"{path}: 0 bytes (copy or download it again)")
    return _open_sound(path, path)


def _open_sound(source: Path | BytesIO, name: Path | str) -> soundfile.SoundFile:
    """Open an audio file, or its bytes, and check the header."""
    try:
        file = soundfile.SoundFile(source)
    except UnicodeEncodeError:
        raise AudioError(f"{name}: its name is not UTF-8 (rename it)") from None
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: not readable as audio, {error.error_string.rstrip('.')} "
            "(convert it to wav, flac, ogg or mp3)"
        ) from None
    try:
        _check_not_truncated(file, name)
        if file.frames == 0:
            raise AudioError(f"{name}: 0 samples (remove or replace it)")
    except AudioError:
        file.close()
        raise
    return file


def inspect_audio(path: str | os.PathLike[str]) -> AudioInfo:
    """Read and check the header of an audio file, and the end of a FLAC file.

    Parameters
    ----------
    path
        A wav, flac, ogg or mp3 file.

    Returns
    -------
    AudioInfo
        Sample rate, number of frames, channels.

    Raises
    ------
    AudioError
        If the file is missing, a folder, empty, not audio, without samples, or (except
        MP3) shorter than its header declares.
    """
    with _open(Path(path)) as file:
        _check_end(file, Path(path))
        return AudioInfo(file.samplerate, file.frames, file.channels)


def _inspect_each(paths: Sequence[str]) -> list[AudioInfo | AudioError]:
    results: list[AudioInfo | AudioError] = []
    for path in paths:
        try:
            results.append(inspect_audio(path))
        except AudioError as error:
            results.append(error)
    return results


def inspect_many(paths: Sequence[str]) -> Iterator[AudioInfo | AudioError]:
    """Inspect the headers of many files in parallel threads.

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


@lru_cache(maxsize=16)
def _resampler(source: int, target: int) -> Resample:
    """Return torchaudio's default sinc resampler, with its filters computed once.

    It equals `torchaudio.functional.resample` bit by bit in float32. That function
    computes the filters in every call, which costs many times more than applying them.
    """
    return Resample(source, target, dtype=torch.float32)


def _decode(file: soundfile.SoundFile, path: Path | str, frames: int) -> Tensor:
    """Decode the first `frames` frames to `[S, channels]` float32."""
    try:
        samples = torch.from_numpy(file.read(frames, dtype="float32", always_2d=True))
    except soundfile.LibsndfileError:
        samples = torch.empty(0, file.channels)
    # The header of an MP3 file may be an estimate, so a shorter one is not corrupt.
    if len(samples) == 0 or (len(samples) < frames and file.format != "MP3"):
        raise AudioError(
            f"{path}: corrupt or truncated, decoding fails before the {file.frames} "
            "samples of its header (copy or download it again, or remove it)"
        )
    if not samples.isfinite().all():
        raise AudioError(f"{path}: contains NaN or infinite samples (export it again)")
    return samples


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
        A wav (8, 16, 24, 32 bit or float), flac, ogg or mp3 file.
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
        As `inspect_audio`; also if decoding fails before the end or a sample is NaN or
        infinite.
    """
    path = Path(path)
    with _open(path) as file:
        return _read(file, path, sample_rate, max_seconds)


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
    with _open_sound(BytesIO(data), name) as file:
        return _read(file, name, sample_rate, max_seconds)


def _read(
    file: soundfile.SoundFile,
    name: Path | str,
    sample_rate: int,
    max_seconds: float | None,
) -> Tensor:
    frames = file.frames
    if max_seconds is not None:
        # One second more, so that the resampling filter does not reach the cut.
        frames = min(frames, int((max_seconds + 1) * file.samplerate))
    wav = _decode(file, name, frames).mean(dim=1)
    if file.samplerate != sample_rate:
        wav = _resampler(file.samplerate, sample_rate)(wav)
    return wav if max_seconds is None else wav[: round(max_seconds * sample_rate)]
