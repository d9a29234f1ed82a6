"""Features of all clips of a manifest, in any number of processes, resumable.

Rows are computed in chunks of fixed size: chunk n by rank n modulo the number of
processes. Each chunk is a file of its own that appears only when it is complete, so an
interrupted extraction continues with the chunks that are missing. The batches within a
chunk do not depend on the number of processes, and neither do the features.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from eat.data.dataset import Batch, ClipDataset, audio_dataset, collate
from eat.data.workers import ClipLoader, worker_errors
from eat.errors import AudioError, EATError, ExperimentError, Interrupted
from eat.inference.features import AudioEncoder, pool
from eat.interop.pretrained import WEIGHTS
from eat.utils.distributed import all_gather_objects, is_connection_error, world_size
from eat.utils.files import atomic_open, atomic_path, sha256_file, write_json
from eat.utils.lock import lock_folder
from eat.utils.settings_diff import describe_changes
from eat.utils.signals import Interruption, ignore_signals
from eat.utils.versions import versions

FEATURES = "features.npy"
CLIPS = "clips.csv"
RECORD = "features.json"
CHUNKS = "chunks"

CHUNK_BATCHES = 8  # batches that a killed process loses at most
NUM_TRIALS = 8  # clips that are read first, to detect a wrong data folder


class FeatureFolder:
    """Features `[M, D]` of a manifest's M clips, complete or in progress.

    Each chunk has `chunk_clips` rows; the last one may have fewer.
    """

    def __init__(self, folder: str | Path, num_clips: int, chunk_clips: int) -> None:
        self.folder = Path(folder)
        self.num_clips = num_clips
        self.chunk_clips = chunk_clips

    @property
    def finished(self) -> bool:
        """Whether all chunks have been computed and joined."""
        return (self.folder / FEATURES).exists()

    def chunks(self) -> range:
        """Return the numbers of all chunks."""
        return range(-(-self.num_clips // self.chunk_clips))

    def rows(self, chunk: int) -> range:
        """Return the rows of a chunk."""
        first = chunk * self.chunk_clips
        return range(first, min(first + self.chunk_clips, self.num_clips))

    def has(self, chunk: int) -> bool:
        """Return whether a chunk is complete."""
        return self._path(chunk).exists()

    def conflict(self, settings: Mapping[str, object]) -> str:
        """Return why features with these settings cannot be written here.

        The settings are all that the numbers depend on, as JSON values. The answer is
        for instance ``pooling was cls, now mean``; it is empty if the folder is new or
        contains features with these settings, complete or in progress.
        """
        path = self.folder / RECORD
        if not path.exists():
            found = [n for n in (FEATURES, CLIPS) if (self.folder / n).exists()]
            return f"{found[0]} without a {RECORD}" if found else ""
        if not self.finished and not self._any_chunk():
            return ""  # nothing was computed: a failed start must not fix the settings
        earlier = json.loads(path.read_text(encoding="utf-8"))["settings"]
        return describe_changes(earlier, settings)

    def start(self, settings: Mapping[str, object], **provenance: object) -> None:
        """Record the settings and further JSON values, unless a chunk exists."""
        (self.folder / CHUNKS).mkdir(parents=True, exist_ok=True)
        if not self._any_chunk():
            write_json(self.folder / RECORD, {"settings": settings, **provenance})

    def write(
        self, chunk: int, features: np.ndarray, failures: Mapping[int, str]
    ) -> None:
        """Write the features `[m, D]` of a chunk's m rows, float32.

        They are NaN for the clips in `failures`: reasons by row of the manifest.
        """
        rows = np.array([*failures], np.int64)
        reasons = np.array([*failures.values()], str)
        path = self._path(chunk)
        with atomic_path(path, sync=True) as temporary, open(temporary, "wb") as file:
            np.savez(file, features=features, rows=rows, reasons=reasons)

    def join(self, ids: Iterable[str]) -> int:
        """Join all chunks, one at a time, and write the list of clips.

        Returns the number of unreadable clips. ``features.npy``, which marks the folder
        as complete, appears last; then the chunks are removed.
        """
        failures: dict[int, str] = {}
        with atomic_path(self.folder / FEATURES, sync=True) as temporary:
            # Not a memory map, where a full disk would end in a SIGBUS.
            with open(temporary, "wb") as file:
                for chunk in tqdm(self.chunks(), "joining", leave=False, disable=None):
                    features, reasons = self._read(chunk)
                    if chunk == 0:
                        width = features.shape[1]
                        _write_header(file, (self.num_clips, width))
                    file.write(features.tobytes())
                    failures |= reasons
            self._write_clips(ids, failures)
            record = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
            record |= {"clips": self.num_clips, "width": width}
            write_json(self.folder / RECORD, record | {"unreadable": len(failures)})
        self.clean_up()
        return len(failures)

    def clean_up(self) -> None:
        """Remove what killed processes left, and the chunks of complete features."""
        for temporary in self.folder.glob(".*.tmp"):
            temporary.unlink()
        if self.finished:
            shutil.rmtree(self.folder / CHUNKS, ignore_errors=True)

    def _path(self, chunk: int) -> Path:
        return self.folder / CHUNKS / f"{chunk:07d}.npz"

    def _any_chunk(self) -> bool:
        return any((self.folder / CHUNKS).glob("*.npz"))

    def _read(self, chunk: int) -> tuple[np.ndarray, dict[int, str]]:
        with np.load(self._path(chunk)) as arrays:
            rows, reasons = arrays["rows"].tolist(), arrays["reasons"].tolist()
            return arrays["features"], dict(zip(rows, reasons, strict=True))

    def _write_clips(self, ids: Iterable[str], failures: Mapping[int, str]) -> None:
        with atomic_open(self.folder / CLIPS) as file:
            writer = csv.writer(file)
            writer.writerow(("row", "id", "unreadable"))
            for row, clip in enumerate(ids):
                writer.writerow((row, clip, failures.get(row, "")))


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


class _Rows(Dataset):
    """Clips by row; for an unreadable clip, the reason in its place."""

    def __init__(self, clips: ClipDataset) -> None:
        self.clips = clips

    def __getitem__(self, row: int) -> tuple[int, dict[str, Any] | str]:
        try:
            return row, self.clips[row]
        except AudioError as error:
            return row, str(error)


def _collate(
    items: list[tuple[int, dict[str, Any] | str]],
) -> tuple[list[int], Batch | None, dict[int, str]]:
    """Return the readable rows, their batch, and the reasons for the other rows."""
    failures = {row: item for row, item in items if isinstance(item, str)}
    readable = {row: item for row, item in items if not isinstance(item, str)}
    return [*readable], collate([*readable.values()]) if readable else None, failures


def compute_chunks(
    store: FeatureFolder,
    clips: ClipDataset,
    model: AudioEncoder,
    pooling: str,
    batch_size: int,
    num_workers: int = 0,
    rank: int = 0,
    num_ranks: int = 1,
) -> None:
    """Compute the missing chunks of one rank; see :func:`extract_features`."""
    own = store.chunks()[rank::num_ranks]
    missing = [chunk for chunk in own if not store.has(chunk)]
    batches = {chunk: _batches(store.rows(chunk), batch_size) for chunk in missing}
    interruption = Interruption()
    loader = ClipLoader(
        _Rows(clips),
        lambda: _stop_if_requested(interruption, store.folder),
        batch_sampler=[rows for chunk in missing for rows in batches[chunk]],
        num_workers=num_workers,
        collate_fn=_collate,
        worker_init_fn=ignore_signals,
    )
    with (
        _progress_bar(store, own, rank, num_ranks) as progress,
        worker_errors(clips),
        interruption.watch(),
    ):
        loaded = iter(loader)
        for chunk in missing:
            rows = store.rows(chunk)
            features = np.full((len(rows), model.encoder.dim), np.nan, np.float32)
            reasons: dict[int, str] = {}
            for readable, batch, failures in islice(loaded, len(batches[chunk])):
                _stop_if_requested(interruption, store.folder)
                if batch is not None:
                    places = [row - rows.start for row in readable]
                    features[places] = _encode(batch, model, pooling)
                reasons |= failures
                progress.update(len(readable) + len(failures))
            store.write(chunk, features, reasons)


def _batches(rows: range, batch_size: int) -> list[list[int]]:
    return [[*rows[i : i + batch_size]] for i in range(0, len(rows), batch_size)]


def _progress_bar(
    store: FeatureFolder, own: Sequence[int], rank: int, num_ranks: int
) -> tqdm:
    """Make the bar of one rank's clips, which only rank 0 shows."""
    sizes = {chunk: len(store.rows(chunk)) for chunk in own}
    return tqdm(
        desc="features" if num_ranks == 1 else f"features (rank 0 of {num_ranks})",
        total=sum(sizes.values()),
        initial=sum(size for chunk, size in sizes.items() if store.has(chunk)),
        unit="clip",
        disable=None if rank == 0 else True,
    )


def _stop_if_requested(interruption: Interruption, folder: Path) -> None:
    if interruption.number is not None:
        raise Interrupted(
            f"{folder}: interrupted by {interruption.name} (re-run the same command to "
            "resume)",
            interruption.number,
        )


@torch.inference_mode()
def _encode(batch: Batch, model: AudioEncoder, pooling: str) -> np.ndarray:
    """Return the features `[B, D]` of a batch."""
    return pool(model(batch.wav, batch.lengths), pooling).cpu().numpy()


def extract_features(
    manifest: str | Path,
    folder: str | Path,
    data_root: str | Path,
    checkpoint: str | Path,
    model: AudioEncoder,
    pooling: str = "cls",
    batch_size: int = 32,
    num_workers: int = 0,
) -> int | None:
    """Write the features of a manifest's clips; every rank must call it.

    Returns the number of unreadable clips, or None if the features were complete.

    Parameters
    ----------
    manifest
        CSV file of the M clips, as the prepare scripts write it.
    folder
        Output folder: ``features.npy`` `[M, D]`, ``clips.csv``, ``features.json``.
    data_root
        Folder to substitute for ``$data_root`` in the manifest.
    checkpoint
        What the model was loaded from.
    model, pooling
        The model, on its device, and how to pool, see `eat.inference.features`.
    batch_size, num_workers
        Clips per batch (changes the last digits), data workers per process.

    Raises
    ------
    EATError
        If the manifest cannot be used, the folder contains other features or is in use,
        no clip can be read, a data worker died or another rank exited.
    Interrupted
        On SIGTERM or SIGINT.
    """
    clips = audio_dataset(manifest, data_root, None, model.max_seconds)
    store = FeatureFolder(folder, len(clips), CHUNK_BATCHES * batch_size)
    settings = _settings(manifest, checkpoint, model, pooling, batch_size)
    paths = {"checkpoint": checkpoint, "manifest": manifest}
    sources = {name: str(Path(path).resolve()) for name, path in paths.items()}
    ranks = world_size()
    rank = torch.distributed.get_rank() if ranks > 1 else 0
    claim = _claim(store, clips, settings, sources, rank)
    with _connection_errors(), _single_thread(), claim:
        if store.finished:
            return None
        compute_chunks(
            store, clips, model, pooling, batch_size, num_workers, rank, ranks
        )
        all_gather_objects(None)  # wait until every rank has written its chunks
        unreadable = store.join(clips.manifest.ids) if rank == 0 else None
        return all_gather_objects(unreadable)[0]


def _settings(
    manifest: str | Path,
    checkpoint: str | Path,
    model: AudioEncoder,
    pooling: str,
    batch_size: int,
) -> dict[str, Any]:
    """Return everything that the numbers depend on."""
    weights = Path(checkpoint)
    if weights.is_dir():
        weights = weights / WEIGHTS
    return {
        "checkpoint_sha256": sha256_file(weights),
        "manifest_sha256": sha256_file(manifest),
        "encoder": model.encoder.config,
        **model.frontend.config,
        "pooling": pooling,
        "precision": model.precision,
        "batch_size": batch_size,
        "device": model.device.type,
    }


@contextmanager
def _claim(
    store: FeatureFolder, clips: ClipDataset, settings: dict, sources: dict, rank: int
) -> Iterator[None]:
    """Let rank 0 lock and start the folder; if it refuses, end all ranks."""
    refusal: EATError | None = None
    with ExitStack() as lock:
        if rank == 0:
            try:
                store.folder.mkdir(parents=True, exist_ok=True)
                lock.enter_context(lock_folder(store.folder))
                _start(store, clips, settings, sources)
            except EATError as error:
                refusal = error
            except OSError as error:
                reason = f"cannot be written to ({error.strerror})"
                refusal = ExperimentError(f"{store.folder}: {reason}")
        if all_gather_objects(refusal is not None)[0]:
            raise refusal or SystemExit(1)  # rank 0 reports it
        yield


def _start(
    store: FeatureFolder, clips: ClipDataset, settings: dict, sources: dict
) -> None:
    """Record settings and sources, if features may be written to the folder."""
    if conflict := store.conflict(settings):
        raise ExperimentError(
            f"{store.folder}: contains other features ({conflict}; give a new folder, "
            "or re-run the original command to resume)"
        )
    store.clean_up()
    if not store.finished:
        _check_readable(clips)
        store.start(settings, **sources, versions=versions())


def _check_readable(clips: ClipDataset) -> None:
    """Read some clips; refuse to start if all fail."""
    number = min(NUM_TRIALS, len(clips))
    failures = []
    for row in np.linspace(0, len(clips) - 1, number).astype(int).tolist():
        try:
            clips[row]
            return
        except AudioError as error:
            failures.append(error)
    raise ExperimentError(
        f"none of {number} clips can be read; the first: {failures[0]}"
    )


@contextmanager
def _single_thread() -> Iterator[None]:
    """Compute in one thread; more would change the last digits of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _connection_errors() -> Iterator[None]:
    """Raise `ExperimentError` if another rank exited."""
    try:
        yield
    except RuntimeError as error:
        if not is_connection_error(error):
            raise
        raise ExperimentError(
            "another rank exited; see its log (re-run the same command to resume)"
        ) from error
