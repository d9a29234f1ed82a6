"""Runs the fine-tunings with a share of the labels and writes `labels.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.measuring import machine
from eat.evaluation.bootstrap import bootstrap, paired_bootstrap
from eat.evaluation.metrics import mean_average_precision
from eat.interop.loading import load_classifier, load_frontend
from evidence.clips import LabeledClips
from evidence.labels import (
    FULL,
    LAYER_SEEDS,
    SCALE_MIN_LR,
    SHARES,
    STARTS,
    Finetuning,
    best_learning_rate,
    finetunings,
    held_out,
    layer_decays,
    search,
)
from evidence.quoting import LABELS
from evidence.results import portable, write_result
from evidence.studies import JobFactory, Row
from paper_tables.jobs import Job
from paper_tables.runner import Runner, run_all


def run_labels(
    factory: JobFactory, default: Row, runner: Runner, results: Path, max_jobs: int
) -> None:
    """Choose learning rates, fine-tune with them, and compare the starting points."""
    searched = {run: run.job(factory, default) for run in search()}
    run_all(searched.values(), runner, max_jobs)
    clips = LabeledClips(factory.manifests, factory.corpus, factory.labeled_clips)
    held_out_scores = {
        run: _held_out_score(job, factory.manifests, clips)
        for run, job in tqdm(searched.items(), "labels: held-out clips", disable=None)
    }
    rates = _best_rates(held_out_scores)
    chosen = [*finetunings(rates), *layer_decays(rates[100, "pretrained"])]
    tuned = {run: run.job(factory, default) for run in chosen}
    run_all(tuned.values(), runner, max_jobs)
    scores = {
        run: _scores(job, clips, "eval")
        for run, job in tqdm(tuned.items(), "labels: scores", disable=None)
    }
    record = {
        "machine": machine(),
        "search": {
            run.name: _record(run, job) | {"held_out_mAP": held_out_scores[run]}
            for run, job in searched.items()
        },
        "runs": {run.name: _record(run, job) for run, job in tuned.items()},
        "comparisons": _compare_starts(scores, clips.labels["eval"]),
        "layer_decay": _compare_layer_decays(scores, clips.labels["eval"]),
    }
    write_result(results / LABELS, record)


def _held_out_score(job: Job, manifests: Path, clips: LabeledClips) -> float:
    """Return the mAP on the labeled clips that a run was not trained on."""
    rows = held_out(manifests, str(job.settings["train_manifest"]))
    scores, labels = _scores(job, clips, FULL, rows), clips.labels[FULL][rows]
    return mean_average_precision(scores, labels)


def _best_rates(
    held_out_scores: Mapping[Finetuning, float],
) -> dict[tuple[int, str], float]:
    """Return the learning rate for each share and starting point."""
    return {
        (share, start): best_learning_rate(
            (run, score)
            for run, score in held_out_scores.items()
            if (run.share, run.start) == (share, start)
        )
        for share in SHARES
        for start in STARTS
    }


def _record(run: Finetuning, job: Job) -> dict[str, Any]:
    finished, results = job.finished() or {}, job.results()
    return {
        "share": run.share,
        "start": run.start,
        "seed": run.seed,
        "lr": run.lr,
        "minimum": run.minimum,
        "mAP": results["last"]["mAP"],
        "revision": results["versions"]["git"],
        "minutes": round(finished["cpu_seconds"] / 60, 1),
        "command": portable(job),
    }


@torch.no_grad()
def _scores(
    job: Job, clips: LabeledClips, subset: str, rows: Sequence[int] | None = None
) -> Tensor:
    """Return a fine-tuned model's scores `[M, C]` of a subset or some of its clips."""
    folder = job.folder / "model"
    classifier = load_classifier(folder)
    batches = clips.normalized(subset, load_frontend(folder), rows)
    return torch.cat([classifier(spec) for spec in batches])


def _compare_starts(
    scores: Mapping[Finetuning, Tensor], labels: Tensor
) -> dict[str, dict[str, Any]]:
    """Return mAP by starting point and their difference, by share of the labels."""
    compared: dict[str, dict[str, Any]] = {}
    for share in SHARES:
        of_start = {
            start: torch.stack(
                [
                    of_run
                    for run, of_run in scores.items()
                    if (run.share, run.start, run.minimum) == (share, start, "")
                ]
            )
            for start in STARTS
        }
        compared[str(share)] = {
            **{start: bootstrap(s, labels)._asdict() for start, s in of_start.items()},
            "difference": paired_bootstrap(
                of_start["pretrained"], of_start["scratch"], labels
            )._asdict(),
        }
    return compared


def _compare_layer_decays(
    scores: Mapping[Finetuning, Tensor], labels: Tensor
) -> dict[str, dict[str, Any]]:
    """Return mAP without and with layer-wise decay, and the difference it makes."""
    of_minimum = {
        minimum: torch.stack(
            [
                of_run
                for run, of_run in scores.items()
                if (run.share, run.start, run.minimum) == (100, "pretrained", minimum)
                and run.seed in LAYER_SEEDS
            ]
        )
        for minimum in ("", *SCALE_MIN_LR)
    }
    plain = of_minimum.pop("")
    compared = {"no layer-wise decay": {"mAP": bootstrap(plain, labels)._asdict()}}
    for minimum, of_runs in of_minimum.items():
        compared[minimum] = {
            "mAP": bootstrap(of_runs, labels)._asdict(),
            "difference": paired_bootstrap(of_runs, plain, labels)._asdict(),
        }
    return compared
