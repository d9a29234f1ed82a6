"""Results of the study's runs: one small JSON file each, free of machine paths."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measuring import machine
from eat.utils.files import atomic_path, write_json
from evidence.clips import LabeledClips
from evidence.measuring import FrozenFeatures, by_layer, probe_scores, summary
from evidence.studies import EPOCH_STEPS, Row
from paper_tables.jobs import Job

SCORES = "evaluation_scores.npz"  # in a run's folder
LOGGED = (
    "loss",
    "frame_loss",
    "utterance_loss",
    "prediction_std",
    "target_std",
    "between_clip_variance",
    "effective_rank",
    "grad_norm",
    "lr",
)
LOG_STEPS = 100  # between two entries of the log that are kept


def measure(job: Job, row: Row, seed: int, clips: LabeledClips) -> dict:
    """Probe the models of a finished pre-training; return its result."""
    curve: list[dict[str, Any]] = []
    last: dict[str, FrozenFeatures] = {}
    for epoch in range(1, row.steps // EPOCH_STEPS + 1):
        folder = job.folder / "models" / f"epoch{epoch}"
        for weights in row.measured(epoch):
            last[weights] = FrozenFeatures.of_model(folder, clips, weights)
            point = {"step": epoch * EPOCH_STEPS, "weights": weights}
            curve.append(point | summary(last[weights]))
    save_scores(job.folder, probe_scores(last["student"]))
    layers = {weights: by_layer(features) for weights, features in last.items()}
    return {
        "row": row.name,
        "seed": seed,
        "changed": row.settings,
        **provenance(job),
        "curve": curve,
        "layers": layers,
        "log": read_log(job.folder),
    }


def provenance(job: Job) -> dict[str, object]:
    """Return command, revision, machine, CPU minutes and memory of a finished run."""
    finished = job.finished() or {}
    return {
        "command": portable(job),
        "versions": job.results()["versions"],
        "machine": machine(),
        "minutes": round(finished["cpu_seconds"] / 60, 1),
        "peak_mb": finished["peak_mb"],
    }


def portable(job: Job) -> str:
    """Return the command of a run with names in place of this machine's folders."""
    output = job.folder.parents[1]
    corpus = str(job.settings["data_folder"])
    words = ["python", *job.command]
    return shlex.join(
        word.replace(corpus, "$CORPUS").replace(str(output), "$OUT") for word in words
    ).replace("'", "")


def read_log(folder: Path) -> dict[str, list[float | None]]:
    """Read every tenth or so entry of a run's log: metric -> values, with the steps."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    kept = [
        entry
        for entry in entries
        if entry["kind"] == "step"
        and (entry["step"] % LOG_STEPS == 0 or entry["step"] < LOG_STEPS)
    ]
    columns: dict[str, list] = {"step": [entry["step"] for entry in kept]}
    for name in LOGGED:
        columns[name] = [_rounded(entry.get(name)) for entry in kept]
    return columns


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def save_scores(folder: Path, scores: Mapping[str, Tensor]) -> None:
    """Keep each probe's scores of the evaluation clips for paired comparisons."""
    arrays = {probe: of_clips.numpy() for probe, of_clips in scores.items()}
    with atomic_path(folder / SCORES) as path, open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_scores(folder: Path, probe: str) -> Tensor:
    """Read a probe's scores of the evaluation clips `[M, C]`."""
    return torch.from_numpy(np.load(folder / SCORES)[probe])


def write_result(path: Path, result: dict) -> None:
    """Write a result, with scores rounded to what clips and seeds can tell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, _round_scores(result))


def _round_scores(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _round_scores(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_round_scores(v) for v in value]
    return value
