"""From the indexes of packed shards to manifests, and their verification."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eat.data.checking import Skipped, write_skipped
from eat.data.manifest import ManifestError, ManifestRow, write_manifest
from eat.data.packing import ClipUnion, ShardTask, is_packed
from eat.data.shards import Address

BESIDE = ("labels.csv", "summary.json")  # what prepare scripts leave with manifests


def write_manifests(
    clips: ClipUnion, tasks: Iterable[ShardTask], sources: Sequence[Path], folder: Path
) -> int:
    """Write a manifest of addresses for each of the manifests that were packed.

    Beside them go ``skipped.csv`` with the clips that could not be read, and the list
    of labels and the summary that lie beside the first manifest.

    Parameters
    ----------
    clips : ClipUnion
        All clips.
    tasks : iterable of ShardTask
        All shards, complete.
    sources : sequence of Path
        The manifests that were packed.
    folder : Path
        Where the shards are.

    Returns
    -------
    int
        How many clips were left out.
    """
    # Of each clip: shard (-1: left out), offset, size, crc32, milliseconds x 10.
    places = np.full((len(clips), 5), -1, dtype=np.int64)
    skipped: list[Skipped] = []
    for task in tasks:
        index = json.loads(task.index.read_text(encoding="utf-8"))
        for row, *place, seconds in index["clips"]:
            places[row] = task.number, *place, round(seconds * 10_000)
        skipped += [Skipped(c, wav, "", why) for c, wav, why in index["skipped"]]
    for name, manifest, rows in zip(
        clips.names, clips.manifests, clips.rows, strict=True
    ):
        held = (
            ManifestRow(
                manifest.ids[i],
                places[row, 4] / 10_000,
                str(Address(f"shard-{places[row, 0]:06d}.tar", *places[row, 1:4])),
                tuple(filter(None, manifest.labels[i].split(";"))),
            )
            for i, row in enumerate(rows)
            if places[row, 0] >= 0
        )
        write_manifest(folder / f"{name}.csv", held)
    write_skipped(folder / "skipped.csv", skipped)
    for source in map(sources[0].with_name, BESIDE):
        if source.is_file():
            shutil.copyfile(source, folder / source.name)
    return len(skipped)


def missing_shards(tasks: Iterable[ShardTask]) -> int:
    """Count the shards that are not there yet.

    Parameters
    ----------
    tasks : iterable of ShardTask
        All shards.

    Returns
    -------
    int
        How many are to be packed.

    Raises
    ------
    ManifestError
        As `eat.data.packing.is_packed`.
    """
    return sum(not is_packed(task) for task in tasks)


def damaged_shards(folder: Path) -> Iterator[str]:
    """Compare every shard of a folder with the checksum in its index.

    Parameters
    ----------
    folder : Path
        Where the shards are.

    Yields
    ------
    str
        One line for each that is missing, truncated or altered.

    Raises
    ------
    ManifestError
        If there are no shards.
    """
    indexes = sorted(folder.glob("shard-*.json"))
    if not indexes:
        raise ManifestError(f"{folder}: no shards there (check the folder)")
    with (
        ThreadPoolExecutor(4) as pool,  # they wait for the disk most of the time
        tqdm(total=len(indexes), unit="shard", desc="verifying", disable=None) as bar,
    ):
        for complaint in pool.map(_complaint, indexes):
            bar.update()
            if complaint:
                yield complaint


def _complaint(index: Path) -> str | None:
    tar = index.with_suffix(".tar")
    try:
        promised = json.loads(index.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError):
        return f"{index}: damaged (remove it and pack again)"
    try:
        with open(tar, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{tar}: cannot be read, {error.strerror} (pack again)"
    if found != promised:
        return f"{tar}: damaged or truncated (remove it and pack again)"
    return None
