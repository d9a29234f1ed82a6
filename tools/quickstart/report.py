"""The quick start's end: probes of frozen features, one table, pictures."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from torch import Tensor, nn
from tqdm import tqdm

import eat
from eat.audio.frontend import LogMel, num_frames_of
from eat.data.dataset import audio_dataset, collate
from eat.data.manifest import read_labels
from eat.evaluation.metrics import mean_average_precision
from eat.evaluation.probing import (
    ProbeResult,
    knn_probe,
    log_mel_statistics,
    logistic_probe,
    paired_bootstrap,
)
from eat.model.encoder import EATEncoder
from eat.model.patching import grid_of
from eat.report.curves import plot_curves, read_metrics
from eat.report.markdown import markdown_table
from eat.report.pictures import plot_comparison, plot_masks
from eat.utils.versions import versions
from paper_tables.jobs import DONE, HAS_BF16, Job

UNTRAINED_SEEDS = (0, 1, 2)
COLUMNS = ("", "mAP", "spread", "runs")
# Group, name and key in results.json of what is compared.
SYSTEMS = (
    ("Frozen", "log-mel statistics", "log_mel_statistics"),
    ("Frozen", "untrained network", "untrained_frozen"),
    ("Frozen", "pre-trained", "pretrained_frozen"),
    ("Fine-tuned", "from scratch", "scratch_finetuned"),
    ("Fine-tuned", "pre-trained", "pretrained_finetuned"),
)
EVAL_SECONDS = 2.6
MEANINGFUL_STEPS = 1000  # with fewer, pre-training has hardly begun


class Clips:
    """Spectrograms and labels of the labeled clips, read once."""

    def __init__(self, manifests: Path, data: Path, frontend: LogMel) -> None:
        self.labels = read_labels(manifests / "labels.csv")
        self.frontend = frontend
        self.train = self._read(manifests / "balanced_train.csv", data)
        self.test = self._read(manifests / "eval.csv", data)

    def _read(self, manifest: Path, data: Path) -> tuple[Tensor, Tensor, Tensor]:
        """Spectrograms `[M, T, F]`, true frames `[M]`, labels `[M, C]`."""
        dataset = audio_dataset(manifest, data, self.labels, EVAL_SECONDS)
        loader = torch.utils.data.DataLoader(dataset, 32, collate_fn=collate)
        parts = [
            (self.frontend(b.wav, b.lengths), num_frames_of(b.lengths), b.target)
            for b in tqdm(
                loader, f"  reading {manifest.stem}", leave=False, disable=None
            )
        ]
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def probe(self, features: Callable[[Tensor, Tensor], Tensor]) -> ProbeResult:
        """Logistic regression on features of (spectrograms, frames)."""
        (spec, frames, labels), (t_spec, t_frames, t_labels) = self.train, self.test
        return logistic_probe(
            features(spec, frames), labels, features(t_spec, t_frames), t_labels
        )

    def log_mel_knn(self, held_out: float) -> float:
        """Nearest neighbors in log-mel statistics, on the training log's clips."""
        spec, frames, labels = self.train
        features = log_mel_statistics(spec, frames)
        query = torch.zeros(len(labels), dtype=torch.bool)
        query[:: round(1 / held_out)] = True  # as the recipe's hold_out
        return knn_probe(
            features[~query], labels[~query], features[query], labels[query]
        )


@torch.no_grad()
def all_layers(encoder: nn.Module, spec: Tensor) -> Tensor:
    """Mean patch token of every layer, side by side: `[M, T, F]` to `[M, depth*D]`."""
    parts = []
    for chunk in tqdm(spec.split(50), "  encoding", leave=False, disable=None):
        with torch.autocast("cpu", torch.bfloat16, enabled=HAS_BF16):
            layers = encoder(chunk, return_layers=True).layers
        means = [layer[:, 1:].float().mean(dim=1) for layer in layers]
        parts.append(torch.cat(means, dim=1))
    return torch.cat(parts)


def untrained(config: dict, seed: int) -> EATEncoder:
    """The same network with its initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return EATEncoder(**config).eval()


def write_report(
    jobs: dict[str, list[Job]], data: Path, output: Path, seed: int
) -> str:
    """Probe, write results.json, report.md and the pictures; returns the table."""
    run = jobs["pretraining"][0].folder
    all_jobs = [job for group in jobs.values() for job in group]
    if _is_newer(output / "results.json", all_jobs):
        results = json.loads((output / "results.json").read_text(encoding="utf-8"))
        return markdown_table(_rows(results), COLUMNS)
    config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    clips = Clips(output / "manifests", data, LogMel(**config["frontend"]))
    encoders = [untrained(config["encoder"], s) for s in UNTRAINED_SEEDS]
    probes = {
        "log_mel": clips.probe(log_mel_statistics),
        "pretrained": clips.probe(_features(eat.load_encoder(run / "model"))),
    }
    untrained_probes = [clips.probe(_features(encoder)) for encoder in encoders]
    probes["untrained"] = untrained_probes[0]
    labels = clips.test[2]
    results = {
        "chance": mean_average_precision(torch.zeros_like(labels), labels),
        "log_mel_statistics": probes["log_mel"].mAP,
        "untrained_frozen": [probe.mAP for probe in untrained_probes],
        "pretrained_frozen": probes["pretrained"].mAP,
        "scratch_finetuned": [j.results()["last"]["mAP"] for j in jobs["scratch"]],
        "pretrained_finetuned": [
            j.results()["last"]["mAP"] for j in jobs["pre-trained"]
        ],
        "frozen_gain_over_untrained": _gain(probes, "untrained", labels),
        "frozen_gain_over_log_mel": _gain(probes, "log_mel", labels),
        "learning_rate_scratch": jobs["scratch"][0].settings["lr"],
        "learning_rate_pretrained": jobs["pre-trained"][0].settings["lr"],
        "pretraining_seed": seed,
        "finetune_steps": jobs["scratch"][0].steps,
        "pretraining_steps": jobs["pretraining"][0].steps,
        "precision": "bf16" if HAS_BF16 else "fp32",
        "seconds": {job.name: job.done()["seconds"] for job in all_jobs},
        "peak_memory_mb_of_largest_run": max(job.done()["peak_mb"] for job in all_jobs),
        "versions": versions(),
    }
    _draw(run, clips, results, output)
    table = markdown_table(_rows(results), COLUMNS)
    _write(output / "report.md", _text(results, table, jobs))
    _write(output / "results.json", json.dumps(results, indent=1) + "\n")
    return table


def _is_newer(report: Path, jobs: list[Job]) -> bool:
    """Whether the report was written after the last of the jobs was done."""
    written = report.stat().st_mtime if report.is_file() else 0
    return written > max((job.folder / DONE).stat().st_mtime for job in jobs)


def _features(encoder: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda spec, frames: all_layers(encoder, spec)


def _gain(probes: dict[str, ProbeResult], other: str, labels: Tensor) -> dict:
    """Pre-trained minus another, paired over the test clips, with a 95% interval."""
    difference, low, high = paired_bootstrap(
        probes["pretrained"].scores, probes[other].scores, labels, seed=0
    )
    return {"difference": difference, "low": low, "high": high}


def _runs(results: dict, key: str) -> list[float]:
    """The figures of a system, one a seed."""
    return results[key] if isinstance(results[key], list) else [results[key]]


def _rows(results: dict) -> list[dict]:
    """The table, one row a system."""
    rows = [{"": "chance", "mAP": results["chance"]}]
    for group, name, key in SYSTEMS:
        runs = _runs(results, key)
        row = {"": f"{name}, {group.lower()}", "mAP": statistics.mean(runs)}
        if len(runs) > 1:
            row["spread"] = statistics.stdev(runs)
            row["runs"] = ", ".join(f"{run:.3f}" for run in runs)
        rows.append(row)
    return rows


def _draw(run: Path, clips: Clips, results: dict, output: Path) -> None:
    with open(run / "hyperparams.yaml", encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file)
    references = {"log-mel statistics": clips.log_mel_knn(hparams["held_out"])}
    plot_curves(read_metrics(run / "metrics.jsonl"), output / "curves.png", references)
    spec = clips.test[0][0]
    grid = grid_of(*spec.shape)
    masks = hparams["mask_sampler"](
        1, hparams["clones"], grid, torch.Generator().manual_seed(0)
    )
    removed = masks.mask.view(-1, *grid)
    plot_masks(spec, removed, output / "masks.png", seconds=len(spec) / 100)
    rows = [
        {"group": group, "name": name, "runs": _runs(results, key)}
        for group, name, key in SYSTEMS
    ]
    plot_comparison(rows, output / "comparison.png", results["chance"])


def _text(results: dict, table: str, jobs: dict[str, list[Job]]) -> str:
    gains = {
        name: "{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**results[key])
        for name, key in [
            ("untrained", "frozen_gain_over_untrained"),
            ("log-mel", "frozen_gain_over_log_mel"),
        ]
    }
    seconds = sum(results["seconds"].values())
    caution = ""
    if results["pretraining_steps"] < MEANINGFUL_STEPS:
        caution = "\n**A short run: all parts work; its figures mean nothing.**\n"
    return f"""# Quick start: what a tiny EAT learned
{caution}
{table}

Mean average precision on 600 clips of the mini AudioSet whose recordings come from
sources that no training clip uses. Frozen: logistic regression on the mean patch
token of every layer. Fine-tuned: {results["finetune_steps"]} steps each, from scratch
with the learning rate {results["learning_rate_scratch"]:g} and pre-trained with
{results["learning_rate_pretrained"]:g}, each chosen on held-out training clips; the
figure is that of the last step. Spread: standard deviation over seeds.

Frozen, pre-trained minus untrained: {gains["untrained"]}; minus log-mel statistics:
{gains["log-mel"]} (95% intervals, paired over the evaluation clips).

**How to read it.** One pre-training of {results["pretraining_steps"]} steps (seed
{results["pretraining_seed"]}). Part of the fine-tuned gain is speed: from scratch the
same network goes on improving with more steps. Two settings go beyond EAT because so
small a run needs them, weaker positions and targets centered per position
(`hparams/pretrain_mini.yaml`). The unlabeled and the labeled training clips share
sources, and nearly all evaluation instruments are of one sound bank.

![curves](curves.png)

The kNN score is there to be watched while pre-training, not to be compared: its clips
are held-out training mixes, whose sources the gallery ones share, and there
log-mel statistics are hard to beat.

![masks](masks.png)

![comparison](comparison.png)

Trainings took {seconds / 60:.1f} core-minutes in all, the largest process
{results["peak_memory_mb_of_largest_run"]} MB. Commands, as run in `recipes/AudioSet`:

```
{_commands(jobs)}
```
"""


def _commands(jobs: dict[str, list[Job]]) -> str:
    """Every training's command line, paths relative to the current folder."""
    here = os.getcwd() + os.sep
    lines = [" ".join(job.command) for group in jobs.values() for job in group]
    return "\n".join("python " + line.replace(here, "../../") for line in lines)


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
