"""Pack the clips of manifests into tar shards.

Which clips a shard holds follows from the manifests alone, so that many machines can
pack at the same time, each its part, and none needs to know of the others.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from torch import Tensor
from tqdm import tqdm

from eat.audio.io import read_audio
from eat.data.compact_manifest import CompactManifest
from eat.data.manifest import ManifestRow, write_manifest
from eat.data.prepare import MISSING, Skipped, write_skipped
from eat.data.shards import Address
from eat.errors import AudioError, AudioNotFoundError, ManifestError
from eat.utils.files import atomic_open

RATE = 16000
_HEADER = 512  # bytes before each member of a tar file


class ClipUnion:
    """The clips of several manifests, each sound file once, in order of appearance.

    Parameters
    ----------
    paths : sequence of Path
        CSV files that a prepare script wrote.

    Attributes
    ----------
    manifests : list of CompactManifest
        Their contents.
    rows : list of numpy.ndarray
        For each manifest the place of its clips in the union.

    Raises
    ------
    ManifestError
        If a manifest cannot be used, or two have one name.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        names = [path.stem for path in paths]
        if len(set(names)) < len(names):
            raise ManifestError(f"{', '.join(names)}: two manifests of one name")
        self.names = names
        self.manifests = [CompactManifest(path) for path in paths]
        places: dict[str, int] = {}
        self.rows, sources = [], []
        for number, manifest in enumerate(self.manifests):
            before = len(places)
            rows = [places.setdefault(wav, len(places)) for wav in manifest.wavs]
            self.rows.append(np.array(rows))
            new = np.flatnonzero(self.rows[-1] >= before)
            sources.append(np.stack([np.full_like(new, number), new], axis=1))
        self._sources = np.concatenate(sources)  # of each clip: manifest, row in it

    def __len__(self) -> int:
        return len(self._sources)

    def clip(self, row: int) -> tuple[str, str, str]:
        """Return id, path and joined labels of a clip."""
        number, index = self._sources[row]
        manifest = self.manifests[number]
        return manifest.ids[index], manifest.wavs[index], manifest.labels[index]


@dataclass(frozen=True)
class ShardTask:
    """All that it takes to make one shard.

    Attributes
    ----------
    folder, data_root : str
        Where shards go, and what ``$data_root`` stands for in the clips' paths.
    number, first : int
        Of the shard, and of its first clip among all.
    clips : tuple of (str, str, str)
        Id, path and joined labels of each.
    max_seconds : float, optional
        Clips are cut to their first seconds.
    """

    folder: str
    data_root: str
    number: int
    first: int
    clips: tuple[tuple[str, str, str], ...]
    max_seconds: float | None

    @property
    def tar(self) -> Path:
        """The shard."""
        return Path(self.folder) / f"shard-{self.number:06d}.tar"

    @property
    def index(self) -> Path:
        """The list of what it holds; it is there when the shard is complete."""
        return self.tar.with_suffix(".json")

    @property
    def made_from(self) -> str:
        """A fingerprint of everything that decides the content."""
        source = [self.first, self.clips, self.max_seconds, RATE]
        return hashlib.sha256(json.dumps(source).encode()).hexdigest()


def shard_tasks(
    clips: ClipUnion,
    folder: Path,
    data_root: str,
    clips_per_shard: int,
    max_seconds: float | None,
) -> Iterator[ShardTask]:
    """Deal the clips out to shards.

    Parameters
    ----------
    clips : ClipUnion
        All of them.
    folder : Path
        Where shards go.
    data_root : str
        What ``$data_root`` stands for in the clips' paths.
    clips_per_shard : int
        The last shard may have fewer.
    max_seconds : float, optional
        Clips are cut to their first seconds.

    Yields
    ------
    ShardTask
        One for each shard, in order.
    """
    for number, first in enumerate(range(0, len(clips), clips_per_shard)):
        rows = range(first, min(first + clips_per_shard, len(clips)))
        held = tuple(map(clips.clip, rows))
        yield ShardTask(str(folder), data_root, number, first, held, max_seconds)


def is_packed(task: ShardTask) -> bool:
    """Say whether a shard is there.

    Parameters
    ----------
    task : ShardTask
        The shard.

    Returns
    -------
    bool
        Whether it is complete, and no clip that was missing has turned up since.

    Raises
    ------
    ManifestError
        If there is one of this name that was made of other clips or options.
    """
    try:
        index = json.loads(task.index.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        raise ManifestError(
            f"{task.index}: damaged (remove it; its shard is then packed again)"
        ) from None
    if index["made_from"] != task.made_from:
        raise ManifestError(
            f"{task.tar}: was packed from other manifests or with other options "
            "(repeat those, or choose another folder)"
        )
    missing = (wav for _, wav, reason in index["skipped"] if reason == MISSING)
    if any(os.path.exists(_resolve(wav, task)) for wav in missing):
        return False
    return task.tar.is_file() and task.tar.stat().st_size == index["bytes"]


def _resolve(wav: str, task: ShardTask) -> str:
    return wav.replace("$data_root", task.data_root, 1)


def pack_shard(task: ShardTask) -> None:
    """Write a shard and its index, each under its name only when complete.

    Parameters
    ----------
    task : ShardTask
        The shard.

    Raises
    ------
    ManifestError
        If none of its clips can be read.
    """
    # Another job may be at the same shard: it writes the same, beside this one.
    passing = task.tar.with_name(
        f".{task.tar.name}.{socket.gethostname()}-{os.getpid()}.part"
    )
    try:
        with open(passing, "wb") as file:
            packed, skipped = _write_clips(file, task)
            size = file.tell()
            os.fsync(file.fileno())
        if not packed:
            raise ManifestError(
                f"{task.tar}: none of its {len(skipped)} clips can be read, the first: "
                f"{skipped[0][1]}: {skipped[0][2]} (check the data folder)"
            )
        with open(passing, "rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        os.replace(passing, task.tar)
    finally:
        passing.unlink(missing_ok=True)
    index = {"made_from": task.made_from, "bytes": size, "sha256": checksum}
    with atomic_open(task.index) as file:
        json.dump({**index, "clips": packed, "skipped": skipped}, file)


def _write_clips(
    file: io.BufferedWriter, task: ShardTask
) -> tuple[list[tuple], list[tuple[str, str, str]]]:
    """Write the clips as a tar file.

    Returns (row, offset, size, crc32, seconds) of each clip that could be read, and
    (id, path, reason) of the others.
    """
    packed, skipped = [], []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row, (clip, wav, labels) in enumerate(task.clips, task.first):
            path = _resolve(wav, task)
            try:
                sound = read_audio(path, RATE, task.max_seconds)
            except AudioNotFoundError:
                skipped.append((clip, wav, MISSING))
                continue
            except AudioError as error:
                reason = str(error).removeprefix(f"{path}: ")
                skipped.append((clip, wav, f"unreadable: {reason}"))
                continue
            seconds = len(sound) / RATE
            names = list(filter(None, labels.split(";")))
            about = {"id": clip, "seconds": seconds, "labels": names}
            flac = to_flac(sound)
            # WebDataset takes what stands before the first dot for the clip's name,
            # and ids may hold dots and slashes.
            _add(tar, f"{row:09d}.json", json.dumps(about).encode())
            offset = tar.offset + _HEADER
            _add(tar, f"{row:09d}.flac", flac)
            packed.append((row, offset, len(flac), zlib.crc32(flac), seconds))
    return packed, skipped


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a member without time or owner: the same clips make the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def to_flac(wav: Tensor) -> bytes:
    """Encode a waveform as 16-bit FLAC, rounded to the nearest of its steps.

    Parameters
    ----------
    wav : Tensor
        `[S]` float32; beyond [-1, 1) it is clipped.

    Returns
    -------
    bytes
        The file.
    """
    steps = (wav * 2**15).round().clamp(-(2**15), 2**15 - 1).short()
    buffer = io.BytesIO()
    soundfile.write(buffer, steps.numpy(), RATE, "PCM_16", format="FLAC")
    return buffer.getvalue()


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
        As `eat.data.shard_writer.is_packed`.
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
