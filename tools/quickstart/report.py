"""The quick start's report: results.json, report.md and pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from string import Template

import torch
from hyperpyyaml import load_hyperpyyaml

import eat
from eat.audio.frontend import LogMel
from eat.evaluation.baselines import log_mel_statistics
from eat.evaluation.bootstrap import paired_bootstrap
from eat.evaluation.metrics import mean_average_precision
from eat.evaluation.probing import ProbeResult
from eat.model.patching import grid_of
from eat.report.curves import plot_curves, read_metrics
from eat.report.markdown import markdown_table
from eat.report.pictures import plot_masks
from eat.utils.files import write_json, write_text
from eat.utils.versions import versions
from paper_tables.jobs import HAS_BF16, JOB_FILE, Job
from quickstart.probes import Clips, encoder_features, untrained_encoder
from quickstart.scores import draw_scores, table_rows

TEMPLATE = Path(__file__).with_name("report.md")
UNTRAINED_SEEDS = (0, 1, 2)
COLUMNS = ("", "mAP", "std", "runs")
MIN_STEPS = 1000  # of a pre-training whose scores mean anything
SHORT_RUN = (
    "\n**A short run: it shows that all parts work; its scores mean nothing.**\n"
)
Jobs = dict[str, list[Job]]


def write_report(jobs: Jobs, data: Path, output: Path, seed: int) -> str:
    """Write results.json, report.md and the pictures; returns the table.

    An existing report that is newer than all runs is not written again.
    """
    path = output / "results.json"
    if _is_newer(path, jobs):
        results = json.loads(path.read_text(encoding="utf-8"))
        return markdown_table(table_rows(results), COLUMNS)
    run = jobs["pretraining"][0].folder
    config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    clips = Clips(output / "manifests", data, LogMel(**config["frontend"]))
    results = {
        **frozen_scores(clips, run / "model", config["encoder"]),
        **training_results(jobs),
        "pretraining_seed": seed,
        "precision": "bf16" if HAS_BF16 else "fp32",
        "versions": versions(),
    }
    draw(run, clips, results, output)
    write_text(output / "report.md", report_text(results, jobs))
    write_json(path, results)
    return markdown_table(table_rows(results), COLUMNS)


def _is_newer(report: Path, jobs: Jobs) -> bool:
    finished = [(j.folder / JOB_FILE).stat().st_mtime for g in jobs.values() for j in g]
    return report.is_file() and report.stat().st_mtime > max(finished)


def frozen_scores(clips: Clips, model: Path, config: dict) -> dict:
    """Probe log-mel statistics, the untrained and the pre-trained encoder."""
    labels = clips.test[2]
    untrained = [
        clips.probe(encoder_features(untrained_encoder(config, seed)))
        for seed in UNTRAINED_SEEDS
    ]
    log_mel = clips.probe(log_mel_statistics)
    pretrained = clips.probe(encoder_features(eat.load_encoder(model)))

    def gain(other: ProbeResult) -> dict[str, float]:
        found = paired_bootstrap(pretrained.scores, other.scores, labels, seed=0)
        return dict(zip(("difference", "low", "high"), found, strict=True))

    return {
        "chance": mean_average_precision(torch.zeros_like(labels), labels),
        "log_mel_statistics": log_mel.value,
        "untrained_frozen": [probe.value for probe in untrained],
        "pretrained_frozen": pretrained.value,
        "frozen_gain_over_untrained": gain(untrained[0]),
        "frozen_gain_over_log_mel": gain(log_mel),
    }


def training_results(jobs: Jobs) -> dict:
    """Collect scores, settings and cost of the training runs."""
    every = [job for group in jobs.values() for job in group]
    records = {job.name: record for job in every if (record := job.finished())}
    scratch, pretrained = jobs["scratch"], jobs["pre-trained"]
    return {
        "scratch_finetuned": [job.results()["last"]["mAP"] for job in scratch],
        "pretrained_finetuned": [job.results()["last"]["mAP"] for job in pretrained],
        "learning_rate_scratch": scratch[0].settings["lr"],
        "learning_rate_pretrained": pretrained[0].settings["lr"],
        "finetune_steps": scratch[0].steps,
        "pretraining_steps": jobs["pretraining"][0].steps,
        "seconds": {name: record["seconds"] for name, record in records.items()},
        "peak_memory_mb_of_largest_run": max(r["peak_mb"] for r in records.values()),
    }


def draw(run: Path, clips: Clips, results: dict, output: Path) -> None:
    """Draw the training curves, masked copies of a clip, and the scores."""
    with open(run / "hyperparams.yaml", encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file)
    references = {"log-mel statistics": clips.log_mel_knn(hparams["held_out"])}
    plot_curves(read_metrics(run / "metrics.jsonl"), output / "curves.png", references)
    spec = clips.test[0][0]
    grid = grid_of(*spec.shape)
    generator = torch.Generator().manual_seed(0)
    masks = hparams["mask_sampler"](1, hparams["clones"], grid, generator)
    mask = masks.mask.view(-1, *grid)
    plot_masks(spec, mask, output / "masks.png", seconds=len(spec) / 100)
    draw_scores(results, output / "comparison.png")


def report_text(results: dict, jobs: Jobs) -> str:
    """Fill the template of report.md."""
    gain = "{difference:+.3f} [{low:+.3f}, {high:+.3f}]"
    short = results["pretraining_steps"] < MIN_STEPS
    fields = {
        **results,
        "caution": SHORT_RUN if short else "",
        "table": markdown_table(table_rows(results), COLUMNS),
        "gain_over_untrained": gain.format(**results["frozen_gain_over_untrained"]),
        "gain_over_log_mel": gain.format(**results["frozen_gain_over_log_mel"]),
        "minutes": f"{sum(results['seconds'].values()) / 60:.1f}",
        "peak_mb": results["peak_memory_mb_of_largest_run"],
        "commands": commands(jobs),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(fields)


def commands(jobs: Jobs) -> str:
    """Return each run's command, with paths relative to the recipe's folder."""
    here = os.getcwd() + os.sep
    lines = [" ".join(job.command) for group in jobs.values() for job in group]
    return "\n".join("python " + line.replace(here, "../../") for line in lines)
