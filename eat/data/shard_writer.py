"""Pack the clips of manifests into tar shards.

Which clips go into a shard depends on the manifests alone, so that many machines can
each pack their part at the same time without communicating.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from torch import Tensor
from tqdm import tqdm

from eat.audio.checks import kind_of, signal_warnings
from eat.audio.io import read_audio
from eat.data.audio_check import MISSING, skip_reason
from eat.data.clip_union import ClipUnion
from eat.data.manifest import ManifestRow, write_manifest
from eat.data.prepare import Skipped, write_skipped
from eat.data.shards import Address
from eat.errors import AudioError, ManifestError
from eat.utils.files import atomic_open, atomic_path, sha256_file

RATE = 16000
CLIPPED = "clipped by packing"  # a kind of warning, beside those of the samples
COPIED = ("labels.csv", "summary.json")  # what prepare scripts write with manifests
_HEADER = 512  # bytes before each member of a tar file


@dataclass(frozen=True)
class ShardTask:
    """Everything needed to write one shard."""

    folder: str
    data_root: str  # what ``$data_root`` in the clips' paths means
    number: int
    first: int  # position of the first clip in the union
    clips: tuple[tuple[str, str, str], ...]  # id, path and joined labels
    max_seconds: float | None  # clips are truncated to this duration

    @property
    def tar(self) -> Path:
        """The shard."""
        return Path(self.folder) / f"shard-{self.number:06d}.tar"

    @property
    def index(self) -> Path:
        """The list of its clips, written when the shard is complete."""
        return self.tar.with_suffix(".json")

    @property
    def made_from(self) -> str:
        """A fingerprint of everything that determines the content."""
        source = [self.first, self.clips, self.max_seconds, RATE]
        return hashlib.sha256(json.dumps(source).encode()).hexdigest()

    def resolve(self, wav: str) -> str:
        """Return the path of an audio file."""
        return wav.replace("$data_root", self.data_root, 1)


def shard_tasks(
    clips: ClipUnion,
    folder: Path,
    data_root: str,
    clips_per_shard: int,
    max_seconds: float | None,
) -> Iterator[ShardTask]:
    """Yield the tasks of all shards, in order; the last may have fewer clips."""
    for number, first in enumerate(range(0, len(clips), clips_per_shard)):
        rows = range(first, min(first + clips_per_shard, len(clips)))
        content = tuple(map(clips.clip, rows))
        yield ShardTask(str(folder), data_root, number, first, content, max_seconds)


def is_packed(task: ShardTask) -> bool:
    """Return whether a shard is complete and no missing clip has appeared since.

    Raises `ManifestError` if it was packed from other clips or with other options.
    """
    try:
        index = json.loads(task.index.read_text(encoding="utf-8"))
        made_from, size, _ = index["made_from"], index["bytes"], index["clips"]
        missing = [wav for _, wav, reason in index["skipped"] if reason == MISSING]
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        raise ManifestError(
            f"{task.index}: corrupt (delete it to pack its shard again)"
        ) from None
    if made_from != task.made_from:
        raise ManifestError(
            f"{task.tar}: was packed from other manifests or with other options "
            "(use those, or choose another folder)"
        )
    if any(os.path.exists(task.resolve(wav)) for wav in missing):
        return False
    return task.tar.is_file() and task.tar.stat().st_size == size


def missing_shards(tasks: Iterable[ShardTask]) -> list[int]:
    """Return the numbers of the shards that are not packed yet."""
    return [task.number for task in tasks if not is_packed(task)]


def pack_shard(task: ShardTask) -> None:
    """Write a shard and then its index, each atomically.

    Raises `ManifestError` if no clip of the first shard can be read, as with a wrong
    data folder; another shard is then empty.
    """
    # Another job may write the same shard at the same time, with the same content.
    with atomic_path(task.tar, sync=True) as temporary:
        with open(temporary, "wb") as file:
            packed, skipped, warnings = _write_clips(file, task)
            size = file.tell()
        if not packed and task.number == 0:
            raise ManifestError(
                f"{task.tar}: none of its {len(skipped)} clips can be read, e.g. "
                f"{skipped[0][1]}: {skipped[0][2]} (check the data folder)"
            )
        checksum = sha256_file(temporary)
    index = {"made_from": task.made_from, "bytes": size, "sha256": checksum}
    with atomic_open(task.index) as file:
        content = {"clips": packed, "skipped": skipped, "warnings": warnings}
        json.dump({**index, **content}, file)


def _write_clips(
    file: BinaryIO, task: ShardTask
) -> tuple[list[tuple], list[tuple[str, str, str]], list[tuple[str, str]]]:
    """Write the clips as a tar file.

    Return (row, offset, size, crc32, seconds) of each packed clip, (id, path, reason)
    of each unreadable one, and (id, warning) of suspicious ones.
    """
    packed, skipped, warnings = [], [], []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row, (clip, wav, labels) in enumerate(task.clips, task.first):
            path = task.resolve(wav)
            try:
                samples = read_audio(path, RATE, task.max_seconds)
                found = [*signal_warnings(samples, RATE, path), *_clipping(samples)]
            except AudioError as error:
                skipped.append((clip, wav, skip_reason(error, path)))
                continue
            seconds = len(samples) / RATE
            names = list(filter(None, labels.split(";")))
            metadata = {"id": clip, "seconds": seconds, "labels": names}
            flac = to_flac(samples)
            # WebDataset takes the part before the first dot as the key of a clip, and
            # ids may contain dots and slashes.
            _add(tar, f"{row:09d}.json", json.dumps(metadata).encode())
            offset = tar.offset + _HEADER
            _add(tar, f"{row:09d}.flac", flac)
            packed.append((row, offset, len(flac), zlib.crc32(flac), seconds))
            warnings += [(clip, warning) for warning in found]
    return packed, skipped, warnings


def _clipping(wav: Tensor) -> Iterator[str]:
    """Yield a warning if 16 bits cannot hold the samples of `to_flac`."""
    peak = wav.abs().max().item()
    if peak > 1:
        yield f"{CLIPPED}: peak {peak:.3g}, 16 bits hold up to 1"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a member without time or owner: the same clips give the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def to_flac(wav: Tensor) -> bytes:
    """Encode a waveform `[S]` as 16-bit FLAC, rounded and clipped to [-1, 1)."""
    steps = (wav * 2**15).round().clamp(-(2**15), 2**15 - 1).short()
    buffer = io.BytesIO()
    soundfile.write(buffer, steps.numpy(), RATE, "PCM_16", format="FLAC")
    return buffer.getvalue()


def read_warnings(tasks: Iterable[ShardTask]) -> dict[str, list[tuple[str, str]]]:
    """Return the warnings about packed clips, by kind: clip and warning of each."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for task in tasks:
        index = json.loads(task.index.read_text(encoding="utf-8"))
        for clip, warning in index.get("warnings", ()):  # not in older versions
            found[kind_of(warning)].append((clip, warning))
    return found


def write_manifests(
    clips: ClipUnion, tasks: Iterable[ShardTask], sources: Sequence[Path], folder: Path
) -> int:
    """Write a manifest of shard addresses for each packed manifest, one of the sources.

    Also writes ``skipped.csv`` with the unreadable clips, whose number is returned, and
    copies the label list and the summary from the folder of the first source. All
    shards must be complete. Raises `ManifestError` if a manifest would be empty.
    """
    # For each clip: shard (-1: unreadable), offset, size, crc32, milliseconds x 10.
    places = np.full((len(clips), 5), -1, dtype=np.int64)
    skipped: list[Skipped] = []
    for task in tasks:
        index = json.loads(task.index.read_text(encoding="utf-8"))
        for row, *place, seconds in index["clips"]:
            places[row] = task.number, *place, round(seconds * 10_000)
        skipped += [Skipped(c, wav, "", why) for c, wav, why in index["skipped"]]
    for source, rows in zip(sources, clips.rows, strict=True):
        if not (places[rows, 0] >= 0).any():
            raise ManifestError(
                f"{source}: none of its {len(rows)} clips can be read (check the data "
                "folder)"
            )
    for name, manifest, rows in zip(
        clips.names, clips.manifests, clips.rows, strict=True
    ):
        packed = (
            ManifestRow(
                manifest.ids[i],
                places[row, 4] / 10_000,
                str(Address(f"shard-{places[row, 0]:06d}.tar", *places[row, 1:4])),
                tuple(filter(None, manifest.labels[i].split(";"))),
            )
            for i, row in enumerate(rows)
            if places[row, 0] >= 0
        )
        write_manifest(folder / f"{name}.csv", packed)
    write_skipped(folder / "skipped.csv", skipped)
    for source in map(sources[0].with_name, COPIED):
        if source.is_file():
            with atomic_path(folder / source.name) as temporary:
                shutil.copyfile(source, temporary)
    return len(skipped)


def corrupt_shards(folder: Path) -> Iterator[str]:
    """Compare every shard with the checksum in its index; yield a line per mismatch.

    Raises `ManifestError` if there are no shards.
    """
    indexes = sorted(folder.glob("shard-*.json"))
    if not indexes:
        raise ManifestError(f"{folder}: no shards (check the folder)")
    with (
        ThreadPoolExecutor(4) as pool,  # mostly waiting for the disk
        tqdm(total=len(indexes), unit="shard", desc="verifying", disable=None) as bar,
    ):
        for fault in pool.map(_fault, indexes):
            bar.update()
            if fault:
                yield fault


def _fault(index: Path) -> str | None:
    """Return what is wrong with a shard."""
    tar = index.with_suffix(".tar")
    try:
        expected = json.loads(index.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError):
        return f"{index}: corrupt (delete it and pack again)"
    try:
        found = sha256_file(tar)
    except OSError as error:
        return f"{tar}: cannot be read, {error.strerror} (pack again)"
    if found != expected:
        return f"{tar}: corrupt or truncated (delete it and pack again)"
    return None
