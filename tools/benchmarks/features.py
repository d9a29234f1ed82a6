"""Features: the encoder's forward pass, and the whole extraction from wav files."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.clock import Clock
from benchmarks.floor import DTYPES
from benchmarks.loader import write_clips
from benchmarks.measuring import (
    ROOT,
    Case,
    Variant,
    measure,
    peak_mb,
    time_table,
    variants,
    write_report,
)
from eat import cli
from eat.audio.frontend import HOP, SAMPLE_RATE, LogMel
from eat.errors import EATError
from eat.interop.pretrained import save_model
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder
from eat.model.operations import embedding_operations, encoder_operations
from eat.model.patching import grid_of
from eat.report.markdown import markdown_table
from eat.utils.arguments import integer


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    add = parser.add_argument
    add(
        "--clips",
        type=integer(2),
        help="wav files to extract, as long as the model's input",
    )


def encoder_case(variant: Variant, device: torch.device) -> Case:
    """Return the forward pass of an encoder on spectrograms of noise."""
    torch.manual_seed(0)
    encoder: Any = EATEncoder.from_preset(variant.preset).to(device).eval()
    grid = grid_of(variant.frames)
    sizes = variant.batch, grid[0] * grid[1]
    operations = [
        *embedding_operations(encoder, *sizes),
        *encoder_operations(encoder, "encoder", variant.batch, sizes[1] + 1),
    ]
    spec = torch.randn(variant.batch, variant.frames, 128, device=device)
    dtype = DTYPES[variant.precision]
    call = encoder
    if variant.compiled:
        call = torch.compile(encoder, mode=variant.compiled)

    @torch.inference_mode()
    def run() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            call(spec)

    return Case(variant, run, operations)


def save_random_model(variant: Variant, folder: Path) -> None:
    """Write a model folder with random weights."""
    classifier = EATClassifier(EATEncoder.from_preset(variant.preset), num_classes=2)
    frontend = LogMel(-4.268, 4.569, variant.frames)
    config = {"kind": "classifier", **classifier.config, "labels": ["a", "b"]}
    save_model(folder, {**config, "frontend": frontend.config}, classifier)


def start_seconds(words: list[str], threads: int) -> float:
    """Return the wall seconds of `eat features` in a process of its own."""
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "eat.cli", *words]
    start = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True
    )
    if done.returncode:
        raise EATError(f"eat features: {done.stderr.strip().splitlines()[-1]}")
    return time.perf_counter() - start


def extract(words: list[str], threads: int, clock: Clock) -> float:
    """Return the seconds of `eat features` in this process."""
    torch.set_num_threads(threads)
    seconds = clock.time(lambda: cli.main(words))
    torch.set_num_threads(threads)  # it may have chosen others
    return seconds


def measure_extraction(
    case: Case, options: argparse.Namespace, clock: Clock
) -> dict[str, Any]:
    """Extract features of many files and of one; their difference has no start."""
    variant, clips = case.variant, options.clips
    seconds, threads = variant.frames * HOP / SAMPLE_RATE, variant.threads
    start, rates, encoder = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_random_model(variant, folder / "model")
        settings = {"device": options.device, "precision": variant.precision}
        settings["batch_size"] = str(variant.batch)
        words = [word for key in settings for word in (f"--{key}", settings[key])]

        def command(what: str, out: str) -> list[str]:
            clips, result = str(folder / what), str(folder / out)
            return ["features", str(folder / "model"), clips, "--out", result, *words]

        for what, number in (("many", clips), ("one", 1)):
            write_clips(folder / what, number, "wav", SAMPLE_RATE, seconds)
        for number in range(options.repeats):
            start.append(start_seconds(command("one", f"start{number}.npy"), threads))
            one, many = (
                extract(command(what, f"{what}{number}.npy"), threads, clock)
                for what in ("one", "many")
            )
            if many <= one:
                raise EATError(f"--clips {clips}: too few to measure (give more)")
            rates.append((clips - 1) / (many - one))
            encoder.append(variant.batch / clock.time(case.run))
    return {
        "variant": str(variant),
        "clips": clips,
        "clips_per_second": rates,
        "encoder_clips_per_second": encoder,
        "over_encoder": median(encoder) / median(rates),
        "start_seconds": start,
    }


def run(options: argparse.Namespace, command: str) -> None:
    """Measure encoder and extraction; print tables, write the report."""
    device = torch.device(options.device)
    cases = [encoder_case(variant, device) for variant in variants(options)]
    clock = Clock(device, options.clock)
    measure(cases, options.repeats, clock)
    records: list[dict[str, Any]] = []
    for case in cases:
        records.append({"variant": str(case.variant), **case.record()})
        if len(cases) == 1:
            records[-1]["peak_mb"] = peak_mb(device)
    print(time_table(records, "encoder"))
    extractions = [
        measure_extraction(case, options, clock)
        for case in cases
        if options.clips and not case.variant.compiled
    ]
    if extractions:
        rows = [
            {
                "eat features": row["variant"],
                "min clips/s": min(row["clips_per_second"]),
                "median clips/s": median(row["clips_per_second"]),
                "max clips/s": max(row["clips_per_second"]),
                "encoder clips/s": median(row["encoder_clips_per_second"]),
                "x encoder": round(row["over_encoder"], 2),
                "one clip, s": median(row["start_seconds"]),
            }
            for row in extractions
        ]
        print("", markdown_table(rows, list(rows[0])), sep="\n")
    write_report(options.json, command, {"encoder": records, "files": extractions})
