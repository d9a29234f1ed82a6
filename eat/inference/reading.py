"""Read many files in threads, in order, a bounded number of files ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
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
from eat.inference.windows import Recording


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
    path = Path(path)
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
