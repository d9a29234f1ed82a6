"""Features of files, which are read in threads and encoded in batches, in order."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from eat.audio.blocks import read_blocks
from eat.audio.frontend import SAMPLE_RATE
from eat.audio.io import read_audio
from eat.errors import AudioError
from eat.inference.encoding import Encoding
from eat.inference.results import Features
from eat.inference.windows import Recording

logger = logging.getLogger(__name__)


class AudioFile(NamedTuple):
    """A file with its waveform `[S]`, which is None if it is long or has an error."""

    path: Path
    wav: Tensor | None
    error: AudioError | None = None

    def recording(self) -> Recording:
        """Return the recording; one that is long is read block by block.

        Raises `AudioError` if it cannot be read.
        """
        if self.error is not None:
            raise self.error
        return Recording(read_blocks(self.path) if self.wav is None else [self.wav])


def read_short(path: str | os.PathLike[str], max_samples: int) -> AudioFile:
    """Read a file that has at most this many samples at 16 kHz; otherwise open it."""
    if not isinstance(path, str | bytes | os.PathLike):
        raise ValueError(f"path {path!r}: must be the path of an audio file")
    path = Path(os.fsdecode(path))
    try:
        wav = read_audio(path, SAMPLE_RATE, (max_samples + 1) / SAMPLE_RATE)
    except AudioError as error:
        return AudioFile(path, None, error)
    return AudioFile(path, wav if len(wav) <= max_samples else None)


def read_ahead(
    paths: Iterable[str | os.PathLike[str]],
    max_samples: int,
    num_threads: int,
    ahead: int,
) -> Generator[AudioFile]:
    """Yield each file in order, see :func:`read_short`; at most `ahead` of them wait.

    Without threads each file is read when it is asked for. Decoding and resampling
    release Python's lock, so threads read in parallel; unlike processes they need no
    shared memory and no main script that can be imported.
    """
    read = partial(read_short, max_samples=max_samples)
    if not num_threads:
        yield from map(read, paths)
        return
    pool = ThreadPoolExecutor(num_threads)
    waiting: deque[Future[AudioFile]] = deque()
    try:
        for path in paths:
            waiting.append(pool.submit(read, path))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also if the caller stops early
        pool.shutdown(cancel_futures=True)


def read_groups(
    paths: Iterable[str | os.PathLike[str]],
    max_samples: int,
    num_threads: int,
    size: int,
) -> Iterator[list[AudioFile]]:
    """Yield `size` files at a time; about as many more are read ahead."""
    with closing(read_ahead(paths, max_samples, num_threads, size)) as files:
        while group := [*islice(files, size)]:
            yield group


def encode_file(file: AudioFile, encoding: Encoding, at_once: int) -> Features:
    """Return the features of a file, `at_once` windows at a time.

    Raises `AudioError` if it cannot be read.
    """
    recording = file.recording()
    (values,) = encoding.run([recording], at_once, "cpu")
    return encoding.features(values, recording.samples, file.path)


def encode_groups(
    groups: Iterable[Sequence[AudioFile]],
    encoding: Encoding,
    batch_size: int,
    at_once: int,
    skip: bool,
) -> Iterator[Features]:
    """Yield the features of the files of all groups in order.

    A file that cannot be read is logged if it is to be skipped; otherwise its
    `AudioError` is raised.
    """
    for group in groups:
        short = _encode_short(group, encoding, batch_size, at_once)
        for place, file in enumerate(group):
            try:
                yield short.get(place) or encode_file(file, encoding, at_once)
            except AudioError as error:
                if not skip:
                    raise
                logger.warning("%s (skipped)", error)


def _encode_short(
    group: Sequence[AudioFile], encoding: Encoding, batch_size: int, at_once: int
) -> dict[int, Features]:
    """Return the features of the short files of a group, by their place in it."""
    wavs = {n: file.wav for n, file in enumerate(group) if file.wav is not None}
    places = [*wavs]
    if encoding.windowing.pad_to == "clip":
        places.sort(key=lambda place: len(wavs[place]))
    features = {}
    for start in range(0, len(places), batch_size):
        batch = places[start : start + batch_size]
        recordings = [group[place].recording() for place in batch]
        values = encoding.run(recordings, at_once, "cpu")
        for place, value in zip(batch, values, strict=True):
            path, samples = group[place].path, len(wavs[place])
            features[place] = encoding.features(value, samples, path)
    return features
