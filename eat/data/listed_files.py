"""From the names in a list to the files on disk, which may be spelled differently."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Callable, Iterable
from functools import cached_property

from eat.utils.text import clean


def _same_text(name: str) -> str:
    """Return one spelling for all normal forms, separators and blanks at the ends."""
    return posixpath.normpath(clean(name).replace("\\", "/"))


def _any_case(name: str) -> str:
    return unicodedata.normalize("NFC", _same_text(name).casefold())


class ListedFiles:
    """Finds the files that a list names among those on disk.

    Linux compares file names byte by byte; macOS decomposes accents, Windows writes
    backslashes, and neither cares for case. A name means the file that is spelled
    exactly so; else the only one that is equal but for this; else the only one that is
    equal but for case as well.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._files = set(files)

    @cached_property
    def _by_text(self) -> dict[str, set[str]]:
        return self._group(_same_text)

    @cached_property
    def _by_any_case(self) -> dict[str, set[str]]:
        return self._group(_any_case)

    def _group(self, key: Callable[[str], str]) -> dict[str, set[str]]:
        groups: dict[str, set[str]] = {}
        for file in self._files:
            groups.setdefault(key(file), set()).add(file)
        return groups

    def find(self, name: str) -> str | None:
        """Return the file that a list means, None if there is none or several."""
        if name in self._files:
            return name
        candidates = self._by_text.get(_same_text(name)) or self.alike(name)
        return next(iter(candidates)) if len(candidates) == 1 else None

    def alike(self, name: str) -> set[str]:
        """Return all files that have the name, whatever its spelling and case."""
        return self._by_any_case.get(_any_case(name), set())
