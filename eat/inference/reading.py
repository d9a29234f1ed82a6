"""Read audio files ahead, in threads, in order, and put them into batches."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from eat.audio.blocks import read_blocks
from eat.audio.frontend import SAMPLE_RATE
from eat.data.shards import parse_address, read_clip
from eat.errors import AudioError
from eat.inference.windows import Recording

MAX_THREADS = 8  # more would wait for Python's lock
POLL_SECONDS = 1
Item = TypeVar("Item")
Read = TypeVar("Read")


class AudioFile(NamedTuple):
    """A file, or a clip in a shard, and its waveform `[S]` unless there is an error.

    Of a long one, which does not fit into the model, it is only the beginning.
    """

    path: Path
    wav: Tensor
    error: AudioError | None = None
    is_long: bool = False

    @property
    def is_short(self) -> bool:
        """Whether it can be read and fits into the model."""
        return self.error is None and not self.is_long

    def recording(self) -> Recording:
        """Return the recording; a long one is read block by block, unless in a shard.

        Raises `AudioError` if it cannot be read.
        """
        if self.error is not None:
            raise self.error
        if not self.is_long:
            return Recording([self.wav])
        if parse_address(os.fspath(self.path)):
            return Recording([read_clip(os.fspath(self.path))])
        return Recording(read_blocks(self.path))


def read_short(path: str | os.PathLike[str], max_samples: int) -> AudioFile:
    """Read a file that has at most this many samples at 16 kHz; otherwise open it."""
    if not isinstance(path, str | bytes | os.PathLike):
        raise ValueError(f"path {path!r}: must be the path of an audio file")
    name = os.fsdecode(path)
    try:
        wav = read_clip(name, SAMPLE_RATE, (max_samples + 1) / SAMPLE_RATE)
    except AudioError as error:
        return AudioFile(Path(name), torch.empty(0), error)
    return AudioFile(Path(name), wav, is_long=len(wav) > max_samples)


def default_threads() -> int:
    """Return how many threads read for one of the processes of this machine."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(MAX_THREADS, (os.cpu_count() or 1) // processes))


def read_ahead(
    read: Callable[[Item], Read],
    items: Iterable[Item],
    num_threads: int,
    ahead: int,
    while_waiting: Callable[[], None] = lambda: None,
) -> Generator[Read]:
    """Yield ``read(item)`` of each item in order; at most `ahead` of them wait.

    Without threads each item is read when it is asked for. Decoding and resampling
    release Python's lock, so threads read in parallel; unlike processes they need no
    shared memory and no main script that can be imported. While a slow item is waited
    for, `while_waiting` is called every second; it may raise.
    """
    if not num_threads:
        yield from map(read, items)
        return
    pool = ThreadPoolExecutor(num_threads)
    waiting: deque[Future[Read]] = deque()

    def first() -> Read:
        """Wait for the first item and return it."""
        while not wait(islice(waiting, 1), POLL_SECONDS).done:
            while_waiting()
        return waiting.popleft().result()

    try:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > ahead:
                yield first()
        while waiting:
            yield first()
    finally:  # also if the caller stops early
        pool.shutdown(wait=False, cancel_futures=True)


def batches(
    items: Iterable[Item],
    size: int,
    length: Callable[[Item], int] | None = None,
) -> Iterator[list[Item]]:
    """Yield the items, `size` at a time; sorted by length if it is given.

    Clips of similar length need little padding.
    """
    ordered = iter(items if length is None else sorted(items, key=length))
    while batch := [*islice(ordered, size)]:
        yield batch
