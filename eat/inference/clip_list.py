"""The clips that a command is given: files, folders and manifests, as one list."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from eat.audio.folders import audio_files
from eat.data.compact_manifest import CompactClips, CompactManifest, compact
from eat.errors import ManifestError

MANIFEST_SUFFIX = ".csv"
ROOT = "$data_root"


class Clip(NamedTuple):
    """A clip: its name, its path, and how it was given on the command line."""

    id: str
    path: str
    given: str


class ClipList(NamedTuple):
    """Clips, where they were found, and what ``$data_root`` in their paths is."""

    clips: CompactClips
    sources: tuple[str, ...]
    data_root: str = ROOT

    def path(self, row: int) -> str:
        """Return the path of a clip, or its address in a shard."""
        return self.clips.wavs[row].replace(ROOT, self.data_root, 1)

    def checksum(self) -> str:
        """Return the SHA-256 of ids and paths; ``$data_root`` may be anywhere."""
        columns = self.clips.ids.sha256 + self.clips.wavs.sha256
        return hashlib.sha256(columns.encode()).hexdigest()


def list_clips(
    paths: Sequence[str | os.PathLike[str]],
    data_root: str | os.PathLike[str] | None = None,
) -> ClipList:
    """List the clips of files, folders and manifests, in the order given.

    Folders are searched by `eat.audio.folders.audio_files`. An id is the path relative
    to the folder, the name of a file, or the id in a manifest; if two clips would have
    the same id, those of files and folders are the paths as given. A file that is given
    twice is listed once.

    Parameters
    ----------
    paths
        Audio files, folders, and manifests (``.csv``) of the prepare scripts.
    data_root
        Folder to substitute for ``$data_root`` in manifests.

    Raises
    ------
    AudioError
        If a folder cannot be listed or has no audio.
    ManifestError
        If a manifest cannot be used, or two clips have the same id.
    """
    names = [os.fspath(path) for path in paths]
    sources = tuple(map(os.path.abspath, names))
    if len(names) == 1 and is_manifest(names[0]):
        manifest = CompactManifest(names[0])
        root = _root_of(manifest, names[0], data_root)
        return ClipList(manifest, sources, root)
    found: dict[str, Clip] = {}
    for name in names:
        for clip in _clips_of(name, data_root):
            found.setdefault(clip.path, clip)
    clips = list(found.values())
    if len({clip.id for clip in clips}) < len(clips):
        clips = [clip._replace(id=clip.given) for clip in clips]
    if twice := [i for i, n in Counter(clip.id for clip in clips).items() if n > 1]:
        raise ManifestError(
            f"{twice[0]}: two clips have this id (process the manifests one by one)"
        )
    ids, wavs = compact(clip.id for clip in clips), compact(clip.path for clip in clips)
    return ClipList(CompactClips(ids, wavs, compact("" for _ in clips)), sources)


def is_manifest(path: str) -> bool:
    """Return whether a path is that of a manifest."""
    return path.lower().endswith(MANIFEST_SUFFIX) and not os.path.isdir(path)


def _clips_of(name: str, data_root: str | os.PathLike[str] | None) -> Iterator[Clip]:
    """Yield the clips of one path."""
    if is_manifest(name):
        manifest = CompactManifest(name)
        root = _root_of(manifest, name, data_root)
        for clip, wav in zip(manifest.ids, manifest.wavs, strict=True):
            yield Clip(clip, wav.replace(ROOT, root, 1), clip)
        return
    folder = name if os.path.isdir(name) else os.path.dirname(name) or os.curdir
    for given in audio_files([name]):
        relative = Path(os.path.relpath(given, folder)).as_posix()
        yield Clip(relative, os.path.abspath(given), given)


def _root_of(
    manifest: CompactManifest, name: str, data_root: str | os.PathLike[str] | None
) -> str:
    """Return the folder to substitute for ``$data_root``; it must be given if used."""
    if data_root is None and manifest.wavs.any_starts_with(ROOT):
        raise ManifestError(
            f"{name}: its paths begin with {ROOT} (give that folder as --data_root)"
        )
    return ROOT if data_root is None else os.fspath(data_root)
