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

from eat.audio.frontend import SAMPLE_RATE
from eat.audio.io import read_audio
from eat.errors import AudioError


class ReadFile(NamedTuple):
    """A file and its waveform `[S]`; None if it is longer than was asked for."""

    path: Path
    wav: Tensor | None
    error: AudioError | None = None


def read_short(path: str | os.PathLike[str], max_samples: int) -> ReadFile:
    """Read a file of at most this many samples at 16 kHz; keep the error, if any."""
    path = Path(path)
    try:
        wav = read_audio(path, SAMPLE_RATE, (max_samples + 1) / SAMPLE_RATE)
    except AudioError as error:
        return ReadFile(path, None, error)
    return ReadFile(path, wav if len(wav) <= max_samples else None)


def read_ahead(
    paths: Iterable[str | os.PathLike[str]],
    max_samples: int,
    num_threads: int,
    ahead: int,
) -> Generator[ReadFile]:
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
    waiting: deque[Future[ReadFile]] = deque()
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
) -> Iterator[list[ReadFile]]:
    """Yield `size` files at a time; about as many more are read ahead."""
    with closing(read_ahead(paths, max_samples, num_threads, size)) as files:
        while group := [*islice(files, size)]:
            yield group
