"""Features of all clips of a manifest, in any number of processes, resumable.

Rows are computed in chunks of fixed size: chunk n by rank n modulo the number of
processes. Each chunk is a file of its own that appears only when it is complete, so an
interrupted extraction continues with the chunks that are missing or damaged. The
batches within a chunk do not depend on the number of processes, and neither do the
features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from eat.data.dataset import Batch, ClipDataset, audio_dataset
from eat.data.workers import ClipLoader, worker_errors
from eat.errors import AudioError, EATError, ExperimentError, Interrupted
from eat.inference.feature_folder import FeatureFolder
from eat.inference.features import AudioEncoder, pool
from eat.inference.rows import ClipRows, collate_rows
from eat.interop.pretrained import WEIGHTS
from eat.utils.distributed import all_gather_objects, is_connection_error, world_size
from eat.utils.files import sha256_file
from eat.utils.lock import lock_folder
from eat.utils.signals import Interruption, ignore_signals
from eat.utils.versions import versions

CHUNK_BATCHES = 8  # batches that a killed process loses at most
NUM_TRIALS = 8  # clips that are read first, to detect a wrong data folder


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
        ClipRows(clips),
        lambda: _stop_if_requested(interruption, store.folder),
        batch_sampler=[rows for chunk in missing for rows in batches[chunk]],
        num_workers=num_workers,
        collate_fn=collate_rows,
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
            failures: dict[int, str] = {}
            warnings: dict[int, str] = {}
            for part in islice(loaded, len(batches[chunk])):
                _stop_if_requested(interruption, store.folder)
                failures |= part.failures
                warnings |= part.warnings
                if part.batch is not None:
                    places = [row - rows.start for row in part.rows]
                    features[places] = _encode(part.batch, model, pooling)
                    failures |= _not_finite(features, rows, part.rows)
                progress.update(len(part.rows) + len(part.failures))
            store.write(chunk, features, failures, warnings)


def _not_finite(
    features: np.ndarray, rows: range, encoded: Sequence[int]
) -> dict[int, str]:
    """Set the features of clips that are not finite to NaN; return these rows."""
    failures = {}
    for row in encoded:
        place = row - rows.start
        if not np.isfinite(features[place]).all():
            features[place] = np.nan
            failures[row] = "its features are not finite (check samples and checkpoint)"
    return failures


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
    width = model.encoder.dim
    store = FeatureFolder(folder, len(clips), CHUNK_BATCHES * batch_size, width)
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
