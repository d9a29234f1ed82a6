"""Task folders of HEAR, and their clips as embeddings with labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from eat.adapters.hear import HearModel, get_timestamp_embeddings
from eat.audio.frontend import SAMPLE_RATE
from eat.audio.io import read_audio
from eat.errors import ManifestError

NUM_WORKERS = 4


class Event(NamedTuple):
    """A sound event of a class, with start and end in ms."""

    label: int
    start: float
    end: float


@dataclass
class Clips:
    """Embeddings `[M, D]` of clips, or of the frames of clips, with labels `[M, C]`.

    Of timestamp tasks, `times` has for each file the times of its frames in ms, in the
    order of `x`, and `events` has its events.
    """

    x: Tensor
    y: Tensor
    times: Sequence[Tensor] = ()
    events: Sequence[Sequence[Event]] = ()


class HearTask:
    """A task folder, as published on Zenodo (10.5281/zenodo.5885750) and unpacked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = self._json("task_metadata")
        self.is_event_task = self.metadata["embedding_type"] == "event"
        self.is_multi_label = self.metadata["prediction_type"] == "multilabel"

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / f"{name}.json"
        if not path.is_file():
            raise ManifestError(
                f"{path}: not found (a task folder of HEAR has task_metadata.json, "
                "labelvocabulary.csv and a JSON file for each split)"
            )
        return json.loads(path.read_text(encoding="utf-8"))

    @cached_property
    def class_index(self) -> dict[str, int]:
        """Index of each class by its name."""
        path = self.folder / "labelvocabulary.csv"
        table = pd.read_csv(path, dtype={"label": str}, keep_default_na=False)
        return dict(zip(table["label"], table["idx"].tolist(), strict=True))

    def splits(self) -> list[tuple[list[str], str, str]]:
        """Return the names of training, validation and test splits, per fold."""
        if self.metadata["split_mode"] == "trainvaltest":
            return [(["train"], "valid", "test")]
        folds = sorted(self.metadata["splits"])
        return [
            ([fold for fold in folds if fold not in (test, valid)], valid, test)
            for test, valid in zip(folds, folds[1:] + folds[:1], strict=True)
        ]

    def encode(self, split: str, model: HearModel) -> Clips:
        """Read and encode the recordings of a split."""
        entries = self._json(split)
        folder = self._audio_folder() / split
        bar = partial(tqdm, desc=split, unit="file", total=len(entries), disable=None)
        paths = [folder / name for name in entries]
        if self.is_event_task:
            return self._encode_events(bar(paths), entries.values(), model)
        features = model.model.encode_files(
            paths, num_workers=NUM_WORKERS, pooling=model.pooling, **model.options
        )
        x = torch.stack([clip.values for clip in bar(features)])
        return Clips(x, torch.stack([*map(self._target, entries.values())]))

    def _encode_events(
        self, paths: Iterable[Path], entries: Iterable[Any], model: HearModel
    ) -> Clips:
        x, y, times, events = [], [], [], []
        for path, entry in zip(paths, entries, strict=True):
            wav = read_audio(path, SAMPLE_RATE).to(model.model.device)
            (frames,), (centers,) = get_timestamp_embeddings(wav[None], model)
            spans = [(e["label"], e["start"], e["end"]) for e in entry]
            y += [
                self._target(
                    [label for label, start, end in spans if start <= t <= end]
                )
                for t in centers.tolist()
            ]
            events.append([Event(self.class_index[str(e[0])], *e[1:]) for e in spans])
            x.append(frames.cpu())
            times.append(centers.cpu())
        return Clips(torch.cat(x), torch.stack(y), times, events)

    def _target(self, labels: Sequence[object]) -> Tensor:
        target = torch.zeros(len(self.class_index))
        target[[self.class_index[str(label)] for label in labels]] = 1
        return target

    def _audio_folder(self) -> Path:
        """Return the folder of the audio with the lowest sample rate from 16 kHz up."""
        rates = [int(path.name) for path in self.folder.glob("[0-9]*000")]
        if not (usable := [rate for rate in rates if rate >= SAMPLE_RATE]):
            raise ManifestError(
                f"{self.folder}: no audio (unpack the archive with the folder 48000)"
            )
        return self.folder / str(min(usable))
