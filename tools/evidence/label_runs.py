"""Runs the fine-tunings with a share of the labels and writes `labels.json`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measuring import machine
from eat.evaluation.bootstrap import bootstrap, paired_bootstrap
from eat.interop.loading import load_classifier, load_frontend
from evidence.clips import LabeledClips
from evidence.labels import (
    SEEDS,
    SHARES,
    STARTS,
    Finetuning,
    best_learning_rate,
    search,
)
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
    rates = {}
    for share in SHARES:
        for start in STARTS:
            scores = [
                (run, job.results()["last"]["mAP"])
                for run, job in searched.items()
                if (run.share, run.start) == (share, start)
            ]
            rates[share, start] = best_learning_rate(scores)
    finetunings = {
        run: run.job(factory, default)
        for (share, start), lr in rates.items()
        for run in (Finetuning(share, start, seed, lr) for seed in SEEDS)
    }
    run_all(finetunings.values(), runner, max_jobs)
    clips = LabeledClips(factory.manifests, factory.corpus, factory.labeled_clips)
    every = [*searched.items(), *finetunings.items()]
    record = {
        "machine": machine(),
        "runs": {run.name: _record(run, job) for run, job in every},
        "comparisons": _compare(finetunings, clips),
    }
    write_result(results / "labels.json", record)


def _record(run: Finetuning, job: Job) -> dict:
    finished = job.finished() or {}
    return {
        "share": run.share,
        "start": run.start,
        "seed": run.seed,
        "lr": run.lr,
        "held_out": run.held_out,
        "mAP": job.results()["last"]["mAP"],
        "revision": job.results()["versions"]["git"],
        "minutes": round(finished["seconds"] / 60, 1),
        "command": portable(job),
    }


def _compare(finetunings: dict[Finetuning, Job], clips: LabeledClips) -> dict:
    """Return mAP by starting point and their difference, by share of the labels."""
    compared: dict[str, dict] = {}
    labels = clips.labels["eval"]
    for share in SHARES:
        scores = {
            start: torch.stack(
                [
                    _scores(job.folder / "model", clips)
                    for run, job in finetunings.items()
                    if (run.share, run.start) == (share, start)
                ]
            )
            for start in STARTS
        }
        compared[str(share)] = {
            **{start: bootstrap(s, labels)._asdict() for start, s in scores.items()},
            "difference": paired_bootstrap(
                scores["pretrained"], scores["scratch"], labels
            )._asdict(),
        }
    return compared


@torch.no_grad()
def _scores(folder: Path, clips: LabeledClips) -> Tensor:
    """Return a fine-tuned model's scores of the evaluation clips `[M, C]`."""
    classifier = load_classifier(folder)
    batches = clips.normalized("eval", load_frontend(folder))
    return torch.cat([classifier(spec) for spec in batches])
