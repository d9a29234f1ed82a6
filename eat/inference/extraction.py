"""Features of all clips of a manifest, shared out over processes, resumable.

Chunk n of the manifest's rows is made by process n modulo their number. A chunk's
batches are the same for any number of processes, and so are the features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from eat.data.dataset import Batch, ClipDataset, audio_dataset, collate
from eat.data.workers import timeout, worker_errors
from eat.errors import AudioError, ExperimentError, Interrupted, LockError
from eat.inference.feature_folder import FeatureFolder
from eat.inference.features import ClipEncoder
from eat.interop.pretrained import WEIGHTS
from eat.utils.distributed import all_gather_objects, is_connection_error, world_size
from eat.utils.lock import lock_folder
from eat.utils.signals import Interruption, ignore_signals
from eat.utils.versions import versions

CHUNK_BATCHES = 8  # what a process that is killed loses at most
TRIED = 8  # clips that are read before all: is this their folder?


def extract_features(
    manifest: str | Path,
    folder: str | Path,
    data_root: str | Path,
    checkpoint: str | Path,
    network: ClipEncoder,
    batch_size: int = 32,
    num_workers: int = 0,
) -> int | None:
    """Write the features of a manifest's clips; all processes must call it.

    Parameters
    ----------
    manifest
        CSV file of the M clips, as the prepare scripts write it.
    folder
        Receives the files of :class:`~eat.inference.feature_folder.FeatureFolder`.
    data_root
        Folder that stands for ``$data_root`` in the manifest.
    checkpoint, network
        What the network was loaded from; and the network, on its device.
    batch_size
        Clips of a batch; moves the last digits.
    num_workers
        Data workers of each process.

    Returns
    -------
    int, optional
        How many clips could not be read; None if all was there already, and in all
        processes but the first.

    Raises
    ------
    ManifestError
        If the manifest cannot be used.
    ExperimentError
        If the folder holds other features or is in use, no clip can be read, or
        another process has ended.
    Interrupted
        If SIGTERM or SIGINT asked for it.
    """
    clips = audio_dataset(manifest, data_root, None, network.seconds)
    store = FeatureFolder(folder, len(clips), CHUNK_BATCHES * batch_size)
    rank = torch.distributed.get_rank() if world_size() > 1 else 0
    with _lost_connections(), _one_thread(), ExitStack() as held:
        refusal = None
        if rank == 0:
            settings = _settings(manifest, checkpoint, network, batch_size)
            sources = {"checkpoint": checkpoint, "manifest": manifest}
            refusal = _take(store, clips, settings, sources, held)
        (refusal, *_) = all_gather_objects(refusal)
        if refusal:
            raise ExperimentError(refusal) if rank == 0 else SystemExit(1)
        if store.finished:
            return None
        fill(store, clips, network, batch_size, num_workers, rank, world_size())
        all_gather_objects(None)  # all chunks are there
        return store.join(clips.manifest.ids) if rank == 0 else None


def fill(
    store: FeatureFolder,
    clips: ClipDataset,
    network: ClipEncoder,
    batch_size: int,
    num_workers: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> None:
    """Make those of a process's chunks that are not there yet.

    Raises
    ------
    Interrupted
        If SIGTERM or SIGINT asked for it.
    ExperimentError
        If a data worker died.
    """
    mine = store.chunks()[rank::processes]
    missing = [chunk for chunk in mine if not store.has(chunk)]
    batches = [
        rows[first : first + batch_size]
        for rows in map(store.rows, missing)
        for first in range(0, len(rows), batch_size)
    ]
    loader = DataLoader(
        _Rows(clips),
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_collate,
        worker_init_fn=ignore_signals,
        timeout=timeout(num_workers),
    )
    clips_of_mine = sum(len(store.rows(chunk)) for chunk in mine)
    bar = tqdm(
        desc="features" + f" (process 1 of {processes})" * (processes > 1),
        total=clips_of_mine,
        initial=clips_of_mine - sum(map(len, batches)),
        unit="clip",
        disable=None if rank == 0 else True,
    )
    interruption, parts, failures = Interruption(), [], {}
    with bar, worker_errors(clips), interruption.watched():
        for rows, batch, failed in loader:
            if interruption.number is not None:
                raise Interrupted(
                    f"{store.folder}: ended by {interruption.name} (the same command "
                    "goes on)",
                    interruption.number,
                )
            parts.append(_features(rows, batch, failed, network))
            failures |= failed
            chunk = rows[-1] // store.chunk_clips
            if rows[-1] == store.rows(chunk)[-1]:
                store.write(chunk, np.concatenate(parts), failures)
                parts, failures = [], {}
            bar.update(len(rows))


def _features(
    rows: list[int],
    batch: Batch | None,
    failed: Mapping[int, str],
    network: ClipEncoder,
) -> np.ndarray:
    """Features `[B, D]` of a batch's rows; NaN of those that cannot be read."""
    features = np.full((len(rows), network.encoder.dim), np.nan, np.float32)
    if batch is not None:
        batch = batch.to(next(network.parameters()).device)
        readable = [row not in failed for row in rows]
        features[readable] = network(batch.wav, batch.lengths).cpu().numpy()
    return features


class _Rows(Dataset):
    """Clips by row; the reason in place of one that cannot be read."""

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
    """Rows, the batch of the readable ones, and why the others are not."""
    failed = {row: item for row, item in items if isinstance(item, str)}
    readable = [item for row, item in items if row not in failed]
    return [row for row, _ in items], collate(readable) if readable else None, failed


def _settings(
    manifest: str | Path, checkpoint: str | Path, network: ClipEncoder, batch_size: int
) -> dict[str, Any]:
    """All that the numbers depend on."""
    weights = Path(checkpoint)
    if weights.is_dir():
        weights = weights / WEIGHTS
    return {
        "checkpoint_sha256": _sha256(weights),
        "manifest_sha256": _sha256(manifest),
        **network.config,
        "batch_size": batch_size,
        "device": next(network.parameters()).device.type,
    }


def _sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _take(
    store: FeatureFolder,
    clips: ClipDataset,
    settings: Mapping[str, Any],
    sources: Mapping[str, str | Path],
    held: ExitStack,
) -> str | None:
    """Take the folder for these features; returns why it cannot be."""
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(lock_folder(store.folder))
        if differences := store.differences(settings):
            return (
                f"{store.folder}: holds other features ({', '.join(differences[:3])}; "
                "give a new folder, or repeat the first command to go on)"
            )
        if store.finished:
            store.tidy()
            return None
        if reason := _unreadable(clips):
            return reason
        paths = {name: str(Path(path).resolve()) for name, path in sources.items()}
        store.begin(settings, **paths, versions=versions())
    except LockError as error:
        return str(error)
    except OSError as error:
        return f"{store.folder}: cannot write there ({error.strerror})"
    return None


def _unreadable(clips: ClipDataset) -> str | None:
    """Why none of some clips can be read; None if one can."""
    tried = np.linspace(0, len(clips) - 1, min(TRIED, len(clips))).astype(int).tolist()
    found = [item for _, item in map(_Rows(clips).__getitem__, tried)]
    if any(isinstance(item, dict) for item in found):
        return None
    return f"none of {len(tried)} clips tried can be read; the first: {found[0]}"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums shared out over threads end in other digits, and launchers set one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _lost_connections() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_connection_error(error):
            raise
        raise ExperimentError(
            "another process has ended, see what it said (the same command goes on)"
        ) from error
