"""Compute the chunks of a list of clips: read, encode and write them at the same time.

Sums have other last digits with another number of threads, so each batch is encoded in
one thread. On the CPU several batches are encoded at a time, in threads side by side,
which changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from eat.audio.checks import signal_warnings
from eat.errors import AudioError, ClipError, Interrupted
from eat.inference.audio_encoder import AudioEncoder
from eat.inference.clip_list import ClipList
from eat.inference.feature_chunk import ClipFeatures
from eat.inference.feature_folder import FeatureFolder
from eat.inference.reading import AudioFile, batches, read_ahead, read_short
from eat.inference.results import Features
from eat.utils.memory import available_memory
from eat.utils.signals import Interruption

CHUNK_BATCHES = 8  # batches that a killed process loses, and those being encoded
NOT_FINITE = "its features are not finite (check samples and checkpoint)"


class ListedClip(NamedTuple):
    """A clip of the list: its row, its file, and what is odd about its samples."""

    row: int
    file: AudioFile
    warnings: str


class Encoded(NamedTuple):
    """By row, features of clips and why others have none."""

    features: dict[int, ClipFeatures]
    failures: dict[int, str]


class ClipEncoder:
    """Reads and encodes clips with one set of options, those of `encoding`."""

    def __init__(
        self,
        model: AudioEncoder,
        clips: ClipList,
        batch_size: int,
        options: Mapping[str, Any],
    ) -> None:
        self.model = model
        self.clips = clips
        self._options = options
        self._encoding = model.encoding(**options, batch_size=batch_size)

    @property
    def batch_size(self) -> int:
        """Clips or windows that are encoded at a time."""
        return self._encoding.at_once

    @property
    def settings(self) -> dict[str, Any]:
        """The options and what they mean for this model, as JSON values."""
        readout = self._encoding.readout
        layers = [*readout.layers] if readout.layer_axis else readout.layers[0]
        meant = {"pooling": readout.pooling, "layers": layers}
        meant |= {"pad_to": self._encoding.windowing.pad_to}
        return {"batch_size": self.batch_size, **self._options, **meant}

    def store(self, out: str | Path) -> FeatureFolder:
        """Return where the features of the clips are written."""
        readout, num_clips = self._encoding.readout, len(self.clips.clips)
        width = self.model.encoder.dim * (2 if readout.pooling == "both" else 1)
        layers = readout.layers if readout.layer_axis else None
        shape = [width] if layers is None else [len(layers), width]
        chunk_clips = CHUNK_BATCHES * self.batch_size
        parts = readout.granularity != "clip"
        return FeatureFolder(out, num_clips, chunk_clips, shape, layers, parts)

    def read(self, row: int) -> ListedClip:
        """Read a clip, unless it is long."""
        path = self.clips.path(row)
        try:
            file = read_short(path, self.model.max_samples)
        except Exception as error:
            name = type(error).__name__
            raise ClipError(f"{path}: {name}, {error} (report this)") from error
        warnings = () if file.error else signal_warnings(file.wav)
        return ListedClip(row, file, "; ".join(warnings))

    def batches(self, clips: Iterable[ListedClip]) -> Iterator[list[ListedClip]]:
        """Yield clips that are to be encoded together; a long one is by itself."""
        length = (lambda clip: len(clip.file.wav)) if self._encoding.sorts else None
        for batch in batches(clips, self.batch_size, length):
            if short := [clip for clip in batch if not clip.file.is_long]:
                yield short
            yield from ([clip] for clip in batch if clip.file.is_long)

    def encode(self, clips: Sequence[ListedClip]) -> Encoded:
        """Encode a batch."""
        failures = {c.row: str(c.file.error) for c in clips if c.file.error}
        readable = [clip for clip in clips if clip.row not in failures]
        try:
            found = self._encoding.encode([clip.file for clip in readable])
        except AudioError as error:  # of a long clip, which is by itself
            return Encoded({}, {clips[0].row: str(error)})
        features = {c.row: f for c, f in zip(readable, found, strict=True)}
        return self._finite(features, failures)

    def _finite(
        self, clips: Mapping[int, Features], failures: Mapping[int, str]
    ) -> Encoded:
        """Separate clips with features that are not finite."""
        encoded = Encoded({}, {**failures})
        for row, clip in clips.items():
            values = clip.numpy()
            if not np.isfinite(values).all():
                encoded.failures[row] = NOT_FINITE
                continue
            readout = self._encoding.readout
            if readout.granularity == "clip":
                values = values[None]
            elif readout.layer_axis:
                values = values.swapaxes(0, 1)  # time first
            encoded.features[row] = ClipFeatures(values, clip.times.numpy())
        return encoded


class Step(NamedTuple):
    """Clips of a chunk that are encoded together."""

    chunk: int
    clips: list[ListedClip]


def compute_chunks(
    store: FeatureFolder,
    chunks: Sequence[int],
    encoder: ClipEncoder,
    num_workers: int,
    show_progress: bool = True,
) -> None:
    """Compute those of the chunks that are missing; see `extract_features`."""
    missing = [chunk for chunk in chunks if not store.has(chunk)]
    interruption = Interruption()

    def stop() -> None:
        """Raise `Interrupted` after a signal."""
        if interruption.number is not None:
            raise Interrupted(
                f"{store.folder}: interrupted by {interruption.name} (re-run the same "
                "command to resume)",
                interruption.number,
            )

    sizes = {chunk: len(store.rows(chunk)) for chunk in chunks}
    total = sum(sizes.values())
    bar = tqdm(
        desc="features",
        total=total,
        initial=total - sum(sizes[chunk] for chunk in missing),
        unit="clip",
        disable=None if show_progress else True,
    )
    rows = (row for chunk in missing for row in store.rows(chunk))
    with bar, interruption.watch(), _encoding_threads(encoder, stop) as run_ahead:
        ahead = 2 * encoder.batch_size
        with closing(read_ahead(encoder.read, rows, num_workers, ahead, stop)) as clips:
            steps = (
                Step(chunk, batch)
                for chunk in missing
                for batch in encoder.batches(islice(clips, sizes[chunk]))
            )
            for chunk, done in groupby(run_ahead(steps), lambda pair: pair[0].chunk):
                _write_chunk(store, chunk, done, bar)


def _write_chunk(
    store: FeatureFolder,
    chunk: int,
    steps: Iterable[tuple[Step, Encoded]],
    bar: tqdm,
) -> None:
    failures: dict[int, str] = {}
    warnings: dict[int, str] = {}
    with store.write(chunk) as file:
        for step, encoded in steps:
            failures |= encoded.failures
            warnings |= {
                clip.row: clip.warnings for clip in step.clips if clip.warnings
            }
            if encoded.features:
                file.add(encoded.features)
            bar.update(len(step.clips))
        file.close(failures, warnings)


@contextmanager
def _encoding_threads(
    encoder: ClipEncoder, stop: Callable[[], None]
) -> Iterator[Callable[[Iterable[Step]], Iterator[tuple[Step, Encoded]]]]:
    """Give a function that runs steps in threads and yields their results in order."""
    cores, leaving, device = torch.get_num_threads(), Event(), encoder.model.device
    num_threads = _num_threads(encoder)

    def stop_between(*_: object) -> None:
        """Leave a long recording between two windows."""
        stop()
        if leaving.is_set():
            raise CancelledError

    def run_ahead(steps: Iterable[Step]) -> Iterator[tuple[Step, Encoded]]:
        """Yield each step with its result, in order; later ones run meanwhile."""
        running: deque[tuple[Step, Future[Encoded]]] = deque()
        for step in steps:
            running.append((step, pool.submit(encoder.encode, step.clips)))
            if len(running) > num_threads:
                yield running[0][0], running.popleft()[1].result()
            stop()
        while running:
            yield running[0][0], running.popleft()[1].result()

    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(num_threads, initializer=partial(_start_thread, device))
    hook = encoder.model.encoder.register_forward_pre_hook(stop_between)
    try:
        yield run_ahead
    finally:
        leaving.set()
        pool.shutdown(cancel_futures=True)
        hook.remove()
        torch.set_num_threads(cores)


def _num_threads(encoder: ClipEncoder) -> int:
    """Return how many batches are encoded at a time.

    On the CPU one in each thread that torch would use, if the memory is sufficient. On
    another device two: one is encoded while the other is prepared or read out.
    """
    if encoder.model.device.type != "cpu":
        return 2
    cores, free = torch.get_num_threads(), available_memory()
    if free is None:
        return cores
    return max(1, min(cores, free // (encoder.batch_size * encoder.model.clip_bytes)))


def _start_thread(device: torch.device) -> None:
    """Prepare an encoding thread.

    A stream of its own lets its copies wait for its own batch only.
    """
    torch.set_num_threads(1)
    if device.type == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream(device))
