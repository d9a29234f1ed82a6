"""From the path that a table gives for a recording to the recording on disk."""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from own_data_recordings import composed, is_audio, segment_of

from eat.data.audio_check import MISSING
from eat.data.prepare import abbreviate

_DRIVE = re.compile(r"(?:file:)?/*[A-Za-z]:/")


def _key(text: str) -> str:
    """Return a form in which spellings of a path that differ in case are equal."""
    return composed(text).casefold()


def _spellings(text: str) -> Iterator[str]:
    """Yield the paths that a text may stand for, the most literal one first."""
    yield text
    slashes = text.replace("\\", "/")
    yield slashes
    if "%" in text or slashes.startswith("file:"):
        yield unquote(re.sub(r"^file:(//localhost)?/*(?=/)", "", slashes))


class RecordingFinder:
    """Finds the recordings that a table names, however it spells their paths.

    A path is absolute, or relative to the data folder or the table's. Its suffix and
    its leading folders may be missing, and those of another machine may precede it; the
    id of AudioSet's ``<id>_30-40.wav`` is enough. What is left must be unambiguous.

    Parameters
    ----------
    data_folder, table_folder
        The folders that paths are relative to; the first one has priority.
    files
        The recordings, relative to `data_folder`.
    """

    def __init__(
        self, data_folder: Path, table_folder: Path, files: Iterable[str]
    ) -> None:
        self.bases = list(dict.fromkeys((str(data_folder), str(table_folder))))
        self.root = os.path.abspath(data_folder)
        self.real_root = os.path.realpath(data_folder)
        self.root_parts = _key(self.root).split(os.sep)
        self.files = {composed(file): file for file in files}
        self.literal = set(self.files.values())
        # By the last part of the path, with and without suffix; by source of a segment.
        self.named: dict[str, list[str]] = defaultdict(list)
        self.segments: dict[str, list[str]] = defaultdict(list)
        for file in self.literal:
            name = os.path.basename(file)
            for spelling in {_key(name), _key(os.path.splitext(name)[0])}:
                self.named[spelling].append(file)
            source, start = segment_of(file)
            if start is not None or source != os.path.splitext(composed(name))[0]:
                self.segments[source].append(file)
            elif vggsound := re.fullmatch(r"([\w-]{11})_\d{6}", source):
                self.segments[vggsound[1]].append(file)

    def find(self, text: str) -> tuple[str, str | None]:
        """Return the recording that a table names, and why it cannot be used, or None.

        A recording in the data folder is given relative to it, any other by its
        absolute path, one that was not found as in the table.
        """
        spellings = list(dict.fromkeys(_spellings(text)))
        for search in (self._listed, self._on_disk, self._by_end, self._by_segment):
            for path in spellings:
                if found := search(path):
                    return found
        return text, MISSING

    def locate(self, text: str) -> Path | None:
        """Return the path of the recording that a text names, None if it names none."""
        file, fault = self.find(text)
        return None if fault else Path(self.root, file)

    def tried(self, text: str) -> list[str]:
        """Return the first paths at which a recording was looked for."""
        path = list(_spellings(text))[1]
        paths = (os.path.normpath(os.path.join(base, path)) for base in self.bases)
        return list(dict.fromkeys(paths))

    def _listed(self, path: str) -> tuple[str, str | None] | None:
        path = posixpath.normpath(path)
        if path in self.literal:
            return path, None
        file = self.files.get(composed(path))
        return (file, None) if file else None

    def _on_disk(self, path: str) -> tuple[str, str | None] | None:
        """Return what a path leads to, if that exists."""
        for base in self.bases:
            full = os.path.abspath(os.path.join(base, path))
            try:
                exists = os.path.lexists(full)
            except ValueError:  # a null byte
                return path, "invalid name: contains a null byte (rename it)"
            if not exists:
                continue
            real = os.path.realpath(full)
            for root, inner in ((self.root, full), (self.real_root, real)):
                if os.path.commonpath((root, inner)) == root:
                    relative = Path(inner).relative_to(root).as_posix()
                    if found := self._listed(relative):
                        return found
            return full, _fault_of(full, self.root)
        return None

    def _by_end(self, path: str) -> tuple[str, str | None] | None:
        """Return the recording whose path ends like this one, or the reverse."""
        absolute = path.startswith("/") or bool(_DRIVE.match(path))
        parts = _key(posixpath.normpath(_DRIVE.sub("", path))).split("/")
        parts = [part for part in parts if part not in ("", ".", "..")]
        found: dict[int, list[str]] = defaultdict(list)
        for file in self.named.get(parts[-1], ()) if parts else ():
            theirs = _key(file).split("/")
            theirs[-1] = parts[-1]  # with or without suffix
            shared = min(len(parts), len(theirs))
            extra = parts[: len(parts) - shared]
            # A relative path may begin above the data folder, not anywhere.
            elsewhere = extra and not absolute
            if elsewhere and self.root_parts[-len(extra) :] != extra:
                continue
            if parts[-shared:] == theirs[-shared:]:
                complete = len(theirs) == len(parts)
                found[2 * shared + complete].append(file)
        return _only(found[max(found)]) if found else None

    def _by_segment(self, path: str) -> tuple[str, str | None] | None:
        """Return the segment of this source, if it starts there or no start is given.

        Paths with folders are taken literally.
        """
        source, start = segment_of(path if is_audio(path) else f"{path}.wav")
        found = [
            file
            for file in self.segments.get(source, ())
            if None in (start, its := segment_of(file)[1]) or its == start
        ]
        return _only(found) if found and "/" not in path else None


def _only(files: list[str]) -> tuple[str, str | None]:
    """Return the only file, or the first with the others as its fault."""
    if len(files) == 1:
        return files[0], None
    return "", f"ambiguous: may be {abbreviate(sorted(files), shown=3)}"


def _fault_of(path: str, root: str) -> str | None:
    """Return why an existing path that is not in the list cannot be used, or None."""
    if os.path.isdir(path):
        return "a folder, not a file"
    if not is_audio(path):
        return f"not an audio file: suffix '{os.path.splitext(path)[1]}'"
    if os.path.commonpath((root, path)) == root:
        hidden = any(part[0] == "." for part in Path(path).relative_to(root).parts)
        return "hidden file" if hidden else "in the folder of the results"
    return None
