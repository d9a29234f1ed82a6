"""The clips of several manifests, each audio file once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eat.data.compact_manifest import CompactManifest
from eat.errors import ManifestError


class ClipUnion:
    """The clips of several manifests, each audio file once, in order of appearance.

    `rows` has for each manifest the positions of its clips in the union. Raises
    `ManifestError` if a manifest cannot be used, or two have the same name.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.names = [path.stem for path in paths]
        if len(set(self.names)) < len(paths):
            raise ManifestError(
                f"{', '.join(self.names)}: two manifests of the same name (rename one)"
            )
        self.manifests = [CompactManifest(path) for path in paths]
        positions: dict[str, int] = {}
        self.rows, sources = [], []
        for number, manifest in enumerate(self.manifests):
            before = len(positions)
            rows = [positions.setdefault(wav, len(positions)) for wav in manifest.wavs]
            self.rows.append(np.array(rows))
            new = np.flatnonzero(self.rows[-1] >= before)
            sources.append(np.stack([np.full_like(new, number), new], axis=1))
        self._sources = np.concatenate(sources)  # for each clip: manifest, row in it

    def __len__(self) -> int:
        return len(self._sources)

    def clip(self, row: int) -> tuple[str, str, str]:
        """Return id, path and joined labels of a clip."""
        number, index = self._sources[row]
        manifest = self.manifests[number]
        return manifest.ids[index], manifest.wavs[index], manifest.labels[index]
