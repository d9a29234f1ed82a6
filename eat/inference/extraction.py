"""Features of many clips, in any number of processes, resumable.

Rows are computed in chunks of fixed size, dealt out to the processes. Each chunk is a
file of its own that appears only when it is complete, so an interrupted extraction
continues with the chunks that are missing or damaged. The batches within a chunk do
not depend on the number of processes, and neither do the features. Processes of one
launcher (torchrun) wait for each other; the parts of a job array know each other only
by the chunks, and whoever finds them complete joins them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from eat.errors import EATError, ExperimentError, LockError
from eat.inference.audio_encoder import AudioEncoder
from eat.inference.chunk_encoding import ClipEncoder, compute_chunks
from eat.inference.clip_list import ClipList
from eat.inference.feature_folder import CHUNKS, FeatureFolder, recorded_batch_size
from eat.inference.reading import default_threads
from eat.utils.distributed import all_gather_objects, is_connection_error, world_size
from eat.utils.lock import lock_folder
from eat.utils.parts import WHOLE, Part
from eat.utils.versions import versions

NUM_TRIALS = 8  # clips that are read first, to detect a wrong data folder
LOCK_SECONDS = 60  # to wait for others that start at the same time


class Extraction(NamedTuple):
    """What has been done.

    Attributes
    ----------
    complete
        Whether all chunks are computed and joined; if not, those of this part are.
    failed
        Number of clips without features; of this part if not complete.
    clips
        The list of clips, with the reasons, if complete.
    new
        Whether anything was missing.
    missing
        Which parts are missing if not complete, and what to do.
    """

    complete: bool
    failed: int
    clips: Path
    new: bool = True
    missing: str = ""


def extract_features(
    model: AudioEncoder,
    clips: ClipList,
    out: str | Path,
    source: str | Path,
    checksum: str,
    weights: str = "student",
    batch_size: int | None = None,
    num_workers: int | None = None,
    part: Part = WHOLE,
    **options: Any,
) -> Extraction:
    """Write the features of many clips; every rank must call it.

    Parameters
    ----------
    model
        The model, on its device.
    clips
        The M clips, see `eat.inference.clip_list.list_clips`.
    out
        The output, see `eat.inference.feature_folder.FeatureFolder`.
    source, checksum, weights
        What the model was loaded from; the SHA-256 of the file of its weights.
    batch_size, num_workers
        Clips per batch (changes the last digits), threads that read. By default what
        suits model and machine, or when resuming, the same batches as before.
    part
        Compute part i of N only; part 0 only joins what the others have computed.
    options
        Those of :meth:`AudioEncoder.encode_file`.

    Raises
    ------
    EATError
        If `out` has other features or is in use, no clip can be read, or a rank exited.
    Interrupted
        On SIGTERM or SIGINT.
    """
    batch_size = batch_size or recorded_batch_size(out)
    encoder = ClipEncoder(model, clips, all_gather_objects(batch_size)[0], options)
    store = encoder.store(out)
    ranks = world_size()
    rank = torch.distributed.get_rank() if ranks > 1 else 0
    settings = {"weights": weights, **_inputs(encoder, checksum)}
    check = partial(_check, store, encoder, settings)
    sources = {"checkpoint": str(Path(source).resolve()), "paths": clips.sources}
    start = partial(_start, store, settings, sources)
    own = part.among(rank, ranks).share(store.chunks())
    threads = default_threads() if num_workers is None else num_workers
    with _connection_errors(), _claim(store, check, start, part, rank):
        if store.finished:
            return Extraction(True, store.record()["failed"], store.clips, new=False)
        with _disk_errors(store):
            compute_chunks(store, own, encoder, threads, rank == 0)
        all_gather_objects(None)  # wait until every rank has written its chunks
        found = _join(store, own, part, clips.clips.ids) if rank == 0 else None
        return all_gather_objects(found)[0]


def _inputs(encoder: ClipEncoder, checksum: str) -> dict[str, Any]:
    """Return what the numbers depend on."""
    model, clips = encoder.model, encoder.clips
    return {
        **encoder.settings,
        "checkpoint_sha256": checksum,
        "clips": len(clips.clips),
        "clips_sha256": clips.checksum(),
        "encoder": model.encoder.config,
        **model.frontend.config,
        "precision": model.precision,
        "device": model.device.type,
    }


@contextmanager
def _claim(
    store: FeatureFolder,
    check: Callable[[], None],
    start: Callable[[], None],
    part: Part,
    rank: int,
) -> Iterator[None]:
    """Let rank 0 start in the folder and lock this part; if it refuses, end all."""
    refusal: EATError | None = None
    with ExitStack() as lock:
        if rank == 0:
            try:
                check()  # before anything is written
                store.folder.mkdir(parents=True, exist_ok=True)
                with _lock(store):
                    start()
                    if not store.finished:
                        name = f".lock-{part.number}-of-{part.total}"
                        chunks = store.folder / CHUNKS
                        lock.enter_context(lock_folder(chunks, name, "--out"))
            except EATError as error:
                refusal = error
            except OSError as error:
                reason = f"cannot be written to, {error.strerror} (check --out)"
                refusal = ExperimentError(f"{store.folder}: {reason}")
        if all_gather_objects(refusal is not None)[0]:
            raise refusal or SystemExit(1)  # rank 0 reports it
        yield


@contextmanager
def _lock(store: FeatureFolder) -> Iterator[None]:
    """Lock the folder while it is started or joined; wait for others that start."""
    last = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            file = lock_folder(store.folder, option="--out")
            break
        except LockError:
            if time.monotonic() > last:
                raise
            time.sleep(0.2)
    with file:
        yield


def _check(
    store: FeatureFolder, encoder: ClipEncoder, settings: Mapping[str, Any]
) -> None:
    """Raise `ExperimentError` if nothing may or can be written."""
    _check_settings(store, settings)
    if not store.finished:
        _check_readable(encoder)


def _check_settings(store: FeatureFolder, settings: Mapping[str, Any]) -> None:
    if conflict := store.conflict(settings):
        raise ExperimentError(
            f"{store.out}: there are other features ({conflict}; give a new --out, "
            "or re-run the original command to resume)"
        )


def _start(
    store: FeatureFolder, settings: Mapping[str, Any], sources: Mapping[str, Any]
) -> None:
    """Record settings and sources; others may have started since the check."""
    _check_settings(store, settings)
    store.clean_up()
    if not store.finished:
        store.start(settings, **sources, versions=versions())


def _check_readable(encoder: ClipEncoder) -> None:
    """Read some clips; refuse to start if all fail."""
    last = len(encoder.clips.clips) - 1
    errors = []
    for row in np.linspace(0, last, min(NUM_TRIALS, last + 1)).astype(int).tolist():
        if (error := encoder.read(row).file.error) is None:
            return
        errors.append(error)
    raise ExperimentError(
        f"none of {len(errors)} clips can be read; the first: {errors[0]}"
    )


def _join(
    store: FeatureFolder, own: Sequence[int], part: Part, ids: Iterable[str]
) -> Extraction:
    """Join the chunks if all are there; say what has been done."""
    absent = [chunk // world_size() for chunk in store.missing()]
    if absent and not store.finished:
        missing = part.missing(absent)
        if not part.number:
            raise ExperimentError(f"{store.out}: {missing}")
        failed = sum(map(store.failed, own))
        return Extraction(False, failed, store.clips, missing=missing)
    with _lock(store), _disk_errors(store):
        if not store.finished:
            store.join(ids)
    return Extraction(True, store.record()["failed"], store.clips)


@contextmanager
def _disk_errors(store: FeatureFolder) -> Iterator[None]:
    """Name the folder in errors; ignore that others have joined all chunks."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and store.finished:
            return
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(store.folder)) from error


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
