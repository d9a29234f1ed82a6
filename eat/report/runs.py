"""What the folder of a run tells: settings, metrics, results, and what it wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from eat.errors import ExperimentError
from eat.evaluation.per_class import read_class_ap
from eat.experiment.yaml_tree import plain_values, read_text
from eat.report.curves import read_metrics

SETTINGS = "hyperparams.yaml"
MAX_CLASSES = 10
MAX_CLIPS = 20  # that are tried for the pictures


@dataclass(frozen=True)
class Run:
    """A run's folder, finished or not; all but the settings may be missing.

    Attributes
    ----------
    folder, name
        Where it is, and what to call it among the other runs.
    settings
        Values by key; those of objects are mappings.
    metrics
        See `eat.report.curves.read_metrics`; None if nothing was logged yet.
    results
        The mappings in ``results.json`` of a finished run; empty before.
    """

    folder: Path
    name: str
    settings: dict[str, Any]
    metrics: pd.DataFrame | None
    results: dict[str, Any]

    @classmethod
    def read(cls, folder: Path, name: str) -> Run:
        """Read a run.

        Raises
        ------
        ExperimentError
            If the folder is not that of a run, or a file in it is damaged.
        """
        if not (folder / SETTINGS).is_file():
            raise ExperimentError(
                f"{folder}: has no {SETTINGS} (give the --output_folder of a run)"
            )
        settings = plain_values(read_text(folder / SETTINGS), str(folder / SETTINGS))
        if not isinstance(settings, dict):
            raise ExperimentError(f"{folder / SETTINGS}: no settings (check the file)")
        metrics = None
        if (path := folder / "metrics.jsonl").is_file() and path.stat().st_size:
            try:
                metrics = read_metrics(path)
            except ValueError as error:
                if b"\n" in path.read_bytes():  # else killed as it wrote the first line
                    raise ExperimentError(f"{path}: damaged: {error}") from error
        results = _read_json(folder / "results.json")
        results = {key: part for key, part in results.items() if isinstance(part, dict)}
        return cls(folder, name, settings, metrics, results)

    @property
    def pretrains(self) -> bool:
        """Whether it is a pre-training run."""
        return self.settings.get("task") == "pretrain"

    @property
    def status(self) -> str:
        """``finished``, or how far it is."""
        if self.results:
            return "finished"
        if self.metrics is None:
            return "nothing logged yet"
        total = self.settings.get("total_steps")
        return f"step {self.metrics['step'].max()} of {total or 'an unknown number'}"

    def class_ap(self) -> dict[str, float]:
        """Return the average precision of each class; empty if it was not written."""
        path = self.folder / "class_ap.txt"
        return read_class_ap(path) if path.is_file() else {}

    def confusion(self) -> pd.DataFrame | None:
        """Return counts by true (rows) and predicted (columns) class, if written."""
        path = self.folder / "confusion.csv"
        if not path.is_file():
            return None
        try:
            counts = pd.read_csv(
                path, index_col=0, keep_default_na=False, dtype={0: str}
            )
            return counts.set_axis(counts.index.astype(str)).astype(int)
        except ValueError as error:
            raise ExperimentError(f"{path}: damaged: {error}") from error

    def coverage(self) -> dict[str, dict[str, Any]]:
        """Return the counts by subset that the preparation wrote; maybe none."""
        path = Path(self.settings.get("manifest_folder") or "") / "summary.json"
        return _read_json(path).get("subsets") or {}

    def rarest_classes(self) -> list[tuple[str, str, int, int]]:
        """Return the classes of which the largest share of the listed clips is missing.

        At most `MAX_CLASSES`: name, subset, clips listed and clips used.
        """
        path = Path(self.settings.get("manifest_folder") or "") / "coverage.csv"
        if not path.is_file():
            return []
        table = pd.read_csv(path, keep_default_na=False)
        table = table[table["used"] < table["listed"]].sort_values("share")
        columns = ["name", "subset", "listed", "used"]
        return list(table[columns].head(MAX_CLASSES).itertuples(index=False, name=None))

    def num_skipped(self) -> int:
        """Return how many batches or clips were excluded from training."""
        path = self.folder / "skipped.jsonl"
        return len(path.read_bytes().splitlines()) if path.is_file() else 0

    def clip_paths(self) -> list[str]:
        """Return the files of the first clips of the manifests, the evaluation's first.

        Clips in shards are not among them.
        """
        root = str(self.settings.get("data_folder"))
        folder = Path(self.settings.get("manifest_folder") or "")
        for path in sorted(folder.glob("*.csv"), key=lambda p: p.name != "eval.csv"):
            with path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                if "wav" not in (reader.fieldnames or ()):
                    continue
                wavs = [row["wav"] for row in islice(reader, MAX_CLIPS)]
            return [wav.replace("$data_root", root, 1) for wav in wavs]
        return []


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read runs, named by the shortest ends of their paths that tell them apart."""
    paths = [Path(folder).resolve() for folder in folders]
    unique = list(dict.fromkeys(paths))
    names = _short_names(unique)
    return [Run.read(path, name) for path, name in zip(unique, names, strict=True)]


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Return the last parts of paths, as many as it takes to be different."""
    length = 1
    while True:
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(paths) or length > max(len(p.parts) for p in paths):
            return names
        length += 1


def _read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file contains; empty if it is missing."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise ExperimentError(f"{path}: damaged: {error}") from error
    return content if isinstance(content, dict) else {}
