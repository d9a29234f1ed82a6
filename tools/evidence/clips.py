"""The labeled clips of the study: spectrograms and labels, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from eat.audio.frontend import LogMel
from eat.data.dataset import audio_dataset, collate
from eat.data.manifest import read_labels
from eat.utils.files import atomic_path

SUBSETS = ("balanced_train", "eval")  # the first to fit probes, the second to test them
SECONDS = 10.26
FRAMES = 1024
BATCH = 20


class LabeledClips:
    """Spectrograms and labels of the labeled clips, memory-mapped.

    Attributes
    ----------
    spectrograms
        Log-mel without normalization `[M, T, F]`, by subset.
    labels
        0 or 1 `[M, C]`, by subset.
    """

    def __init__(self, manifests: Path, corpus: Path, cache: Path) -> None:
        self.spectrograms: dict[str, Tensor] = {}
        self.labels: dict[str, Tensor] = {}
        for subset in SUBSETS:
            files = [cache / f"{subset}_{kind}.npy" for kind in ("mels", "labels")]
            if not all(path.exists() for path in files):
                _write(manifests / f"{subset}.csv", corpus, *files)
            mels, labels = (np.load(path, mmap_mode="c") for path in files)
            self.spectrograms[subset] = torch.from_numpy(mels)
            self.labels[subset] = torch.from_numpy(labels)

    def normalized(
        self, subset: str, frontend: LogMel, rows: Sequence[int] | None = None
    ) -> list[Tensor]:
        """Return batches `[B, T, F]` with the normalization of a front end."""
        every = self.spectrograms[subset]
        return [
            (mels - frontend.mean) / (2 * frontend.std)
            for mels in (every if rows is None else every[rows]).split(BATCH)
        ]


def _write(manifest: Path, corpus: Path, mels: Path, labels: Path) -> None:
    """Compute the spectrograms of a manifest's clips."""
    classes = read_labels(manifest.parent / "labels.csv")
    dataset = audio_dataset(manifest, corpus, classes, SECONDS)
    loader = DataLoader(dataset, BATCH, collate_fn=collate)
    frontend = LogMel(mean=0.0, std=0.5, num_frames=FRAMES)  # no normalization
    batches = [
        (frontend(batch.wav, batch.lengths), batch.labels)
        for batch in tqdm(loader, f"reading {manifest.stem}", leave=False, disable=None)
    ]
    mels.parent.mkdir(parents=True, exist_ok=True)
    for path, parts in zip((mels, labels), zip(*batches, strict=True), strict=True):
        with atomic_path(path) as partial, open(partial, "wb") as file:
            np.save(file, torch.cat(parts).numpy())
