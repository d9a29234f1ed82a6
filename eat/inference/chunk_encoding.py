"""Compute the chunks of a list of clips: load, encode and write them at the same time.

Sums have other last digits with another number of threads, so each batch is encoded in
one thread. On the CPU several batches are encoded at a time, in threads side by side,
which changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from eat.data.dataset import Batch, ClipDataset
from eat.data.shards import parse_address, read_clip
from eat.data.workers import ClipLoader, worker_errors
from eat.errors import AudioError, Interrupted
from eat.inference.audio_encoder import AudioEncoder
from eat.inference.clip_list import ClipList
from eat.inference.feature_chunk import ClipFeatures
from eat.inference.feature_folder import FeatureFolder
from eat.inference.file_encoding import AudioFile, encode_file
from eat.inference.results import Features
from eat.inference.rows import ClipRows, LoadedRows, clips_up_to, collate_up_to
from eat.inference.windows import Recording
from eat.utils.signals import Interruption, ignore_signals

CHUNK_BATCHES = 8  # batches that a killed process loses, and those being encoded
NOT_FINITE = "its features are not finite (check samples and checkpoint)"


class Encoded(NamedTuple):
    """By row, features of clips and why others have none."""

    features: dict[int, ClipFeatures]
    failures: dict[int, str]


class ClipEncoder:
    """Encodes the clips of a list with one set of options, those of `encode_file`."""

    def __init__(
        self, model: AudioEncoder, clips: ClipDataset, options: Mapping[str, Any]
    ) -> None:
        self._model = model
        self._clips = clips
        self._options = options
        self._encoding = model.encoding(**options)

    @property
    def shape(self) -> list[int]:
        """The shape of the features of one time: `[D]`, or `[L, D]` with layers."""
        readout = self._encoding.readout
        width = self._model.encoder.dim * (2 if readout.pooling == "both" else 1)
        return [*([len(readout.layers)] if readout.layer_axis else []), width]

    @property
    def layers(self) -> tuple[int, ...] | None:
        """The layers, if the features have an axis for them."""
        readout = self._encoding.readout
        return readout.layers if readout.layer_axis else None

    @property
    def has_parts(self) -> bool:
        """Whether each clip has a number of features of its own."""
        return self._encoding.readout.granularity != "clip"

    @property
    def settings(self) -> dict[str, Any]:
        """The options and what they mean for this model, as JSON values."""
        readout = self._encoding.readout
        layers = [*readout.layers] if readout.layer_axis else readout.layers[0]
        meant = {"pooling": readout.pooling, "layers": layers}
        return {**self._options, **meant, "pad_to": self._encoding.windowing.pad_to}

    def encode_batch(self, rows: Sequence[int], batch: Batch | None) -> Encoded:
        """Encode clips that fit into the model, if there are any."""
        if batch is None:
            return Encoded({}, {})
        lengths = batch.lengths.tolist()
        wavs = [wav[:n] for wav, n in zip(batch.wav, lengths, strict=True)]
        at_once = max(len(wavs), self._model.windows_at_once)
        found = self._encoding.run([Recording([wav]) for wav in wavs], at_once, "cpu")
        features = map(self._encoding.features, found, lengths, batch.ids)
        return self._finite(dict(zip(rows, features, strict=True)))

    def encode_long(self, row: int) -> Encoded:
        """Encode a longer clip in windows, read block by block unless in a shard."""
        path = self._clips.path(row)
        try:
            wav = None if parse_address(path) is None else read_clip(path)
            file = AudioFile(Path(path), wav)
            features = encode_file(file, self._encoding, self._model.windows_at_once)
        except AudioError as error:
            return Encoded({}, {row: str(error)})
        return self._finite({row: features})

    def _finite(self, clips: Mapping[int, Features]) -> Encoded:
        """Separate clips with features that are not finite."""
        found, failures = {}, {}
        for row, clip in clips.items():
            values = clip.numpy()
            if not np.isfinite(values).all():
                failures[row] = NOT_FINITE
                continue
            if not self.has_parts:
                values = values[None]
            elif self.layers is not None:
                values = values.swapaxes(0, 1)  # time first
            found[row] = ClipFeatures(values, clip.times.numpy())
        return Encoded(found, failures)


class Step(NamedTuple):
    """Clips of a chunk that are encoded together, or of which nothing is to be done."""

    chunk: int
    num_clips: int
    failures: dict[int, str]
    warnings: dict[int, str]
    encode: Callable[[], Encoded]


def compute_chunks(
    store: FeatureFolder,
    chunks: Sequence[int],
    clips: ClipList,
    model: AudioEncoder,
    options: Mapping[str, Any],
    batch_size: int,
    num_workers: int = 0,
    show_progress: bool = True,
) -> None:
    """Compute those of the chunks that are missing; see `extract_features`."""
    missing = [chunk for chunk in chunks if not store.has(chunk)]
    batches = {chunk: _batches(store.rows(chunk), batch_size) for chunk in missing}
    interruption = Interruption()
    data = clips_up_to(model.max_samples, clips)
    loader = ClipLoader(
        ClipRows(data),
        lambda: _stop_if_requested(interruption, store.folder),
        batch_sampler=[rows for chunk in missing for rows in batches[chunk]],
        num_workers=num_workers,
        collate_fn=collate_up_to(model.max_samples),
        worker_init_fn=ignore_signals,
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
    encoder = ClipEncoder(model, data, options)
    with bar, worker_errors(data), interruption.watch():
        with _encoding_threads(model, interruption, store.folder) as run_ahead:
            steps = _steps(missing, batches, iter(loader), encoder)
            for chunk, done in groupby(run_ahead(steps), lambda pair: pair[0].chunk):
                _write_chunk(store, chunk, done, bar)


def _steps(
    chunks: Sequence[int],
    batches: Mapping[int, Sequence[Sequence[int]]],
    loaded: Iterator[LoadedRows],
    encoder: ClipEncoder,
) -> Iterator[Step]:
    """Yield what is to be done for each batch; a long clip is a step of its own."""
    for chunk in chunks:
        for part in islice(loaded, len(batches[chunk])):
            first = partial(encoder.encode_batch, part.rows, part.batch)
            num_clips = len(part.rows) + len(part.failures)
            yield Step(chunk, num_clips, part.failures, part.warnings, first)
            for row in part.long:
                yield Step(chunk, 1, {}, {}, partial(encoder.encode_long, row))


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
            failures |= step.failures | encoded.failures
            warnings |= step.warnings
            if encoded.features:
                file.add(encoded.features)
            bar.update(step.num_clips)
        file.close(failures, warnings)


@contextmanager
def _encoding_threads(
    model: AudioEncoder, interruption: Interruption, folder: Path
) -> Iterator[Callable[[Iterable[Step]], Iterator[tuple[Step, Encoded]]]]:
    """Give a function that runs steps in threads and yields their results in order.

    On the CPU there are as many as torch would use, one on a GPU.
    """
    cores, leaving = torch.get_num_threads(), Event()
    num_threads = cores if model.device.type == "cpu" else 1

    def stop(*_: object) -> None:
        """Leave a long recording between two windows."""
        _stop_if_requested(interruption, folder)
        if leaving.is_set():
            raise CancelledError

    def run_ahead(steps: Iterable[Step]) -> Iterator[tuple[Step, Encoded]]:
        """Yield each step with its result, in order; later ones run meanwhile."""
        running: deque[tuple[Step, Future[Encoded]]] = deque()
        for step in steps:
            running.append((step, pool.submit(step.encode)))
            if len(running) > num_threads:
                yield running[0][0], running.popleft()[1].result()
            _stop_if_requested(interruption, folder)
        for step, future in running:
            yield step, future.result()

    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(
        num_threads, initializer=torch.set_num_threads, initargs=(1,)
    )
    hook = model.encoder.register_forward_pre_hook(stop)
    try:
        yield run_ahead
    finally:
        leaving.set()
        pool.shutdown(cancel_futures=True)
        hook.remove()
        torch.set_num_threads(cores)


def _batches(rows: range, batch_size: int) -> list[list[int]]:
    return [[*rows[i : i + batch_size]] for i in range(0, len(rows), batch_size)]


def _stop_if_requested(interruption: Interruption, folder: Path) -> None:
    if interruption.number is not None:
        raise Interrupted(
            f"{folder}: interrupted by {interruption.name} (re-run the same command to "
            "resume)",
            interruption.number,
        )
