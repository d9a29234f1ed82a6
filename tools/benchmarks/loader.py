"""The data loader: clips per CPU second, by file format and number of workers."""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
import torch
from torch.utils.data import BatchSampler
from tqdm import tqdm

import pack_shards
from benchmarks.measuring import several, write_report
from eat.data.dataset import ClipDataset, audio_dataset, collate
from eat.data.manifest import ManifestRow, write_manifest
from eat.data.workers import ClipLoader
from eat.report.markdown import markdown_table
from eat.utils.arguments import integer

SECONDS = 10
FORMATS = {
    "wav 16 kHz": ("wav", 16000),
    "wav 44.1 kHz": ("wav", 44100),
    "FLAC 16 kHz": ("flac", 16000),
    "FLAC 32 kHz": ("flac", 32000),
}
SHARDS = "FLAC 16 kHz, shards"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    add = parser.add_argument
    add("--workers", type=several(integer(0, 128)), default=[0, 1], help="processes")
    add("--batch", type=integer(1), default=12, help="clips per batch")
    add("--clips", type=integer(1), default=600, help="clips to load in each round")
    add("--files", type=integer(1), default=60, help="files, which are read repeatedly")
    add("--repeats", type=integer(1), default=3, help="rounds after one to warm up")


def write_clips(
    folder: Path, files: int, suffix: str, rate: int, seconds: float = SECONDS
) -> Path:
    """Write 16-bit mono files of tones in noise; return their manifest."""
    folder.mkdir()
    time_axis, rng = np.arange(round(seconds * rate)) / rate, np.random.default_rng(0)
    rows = []
    for number in range(files):
        noise = 0.02 * rng.standard_normal(len(time_axis))
        tone = 0.3 * np.sin(2 * np.pi * (200 + 50 * number) * time_axis)
        path = folder / f"{number}.{suffix}"
        soundfile.write(path, tone + noise, rate, subtype="PCM_16")
        rows.append(ManifestRow(str(number), seconds, path.name))
    manifest = folder.with_name(f"{folder.name}.csv")
    write_manifest(manifest, rows)
    return manifest


def make_datasets(folder: Path, files: int) -> dict[str, ClipDataset]:
    """Write the files of all formats; return their datasets."""
    datasets = {}
    for name, (suffix, rate) in FORMATS.items():
        root = folder / f"{suffix}{rate}"
        manifest = write_clips(root, files, suffix, rate)
        datasets[name] = audio_dataset(manifest, root, None, max_seconds=SECONDS)
    shards, source = folder / "shards", folder / "flac16000"
    words = [f"{source}.csv", "--data_folder", source, "--output", shards]
    with redirect_stdout(None):
        pack_shards.main([*map(str, words), "--workers", "1"])
    manifest = shards / f"{source.name}.csv"
    datasets[SHARDS] = audio_dataset(manifest, shards, None, max_seconds=SECONDS)
    return datasets


def load(
    data: ClipDataset, clips: int, batch: int, workers: int
) -> tuple[float, float]:
    """Load clips; return CPU seconds, of workers too, and wall seconds."""
    order = BatchSampler([i % len(data) for i in range(clips)], batch, False)
    start, before = time.perf_counter(), sum(os.times()[:4])
    loader = ClipLoader(
        data, num_workers=workers, batch_sampler=order, collate_fn=collate
    )
    loaded = sum(len(item.ids) for item in loader)
    wall = time.perf_counter() - start
    assert loaded == clips
    del loader
    gc.collect()  # so that the workers have ended: their time is known only then
    return sum(os.times()[:4]) - before, wall


def run(options: argparse.Namespace, command: str) -> None:
    """Measure all formats in turn; print a table, write the report."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        datasets = make_datasets(Path(folder), options.files)
        kinds = [(name, workers) for name in datasets for workers in options.workers]
        times: dict[tuple[str, int], list] = {kind: [] for kind in kinds}
        rounds = [(n, kind) for n in range(options.repeats + 1) for kind in kinds]
        for number, (name, workers) in tqdm(rounds, leave=False, disable=None):
            few = options.clips if number else options.batch
            found = load(datasets[name], few, options.batch, workers)
            if number:
                times[name, workers].append(found)
    records: list[dict[str, Any]] = []
    for (name, workers), pairs in times.items():
        record: dict[str, Any] = {"format": name, "workers": workers}
        record["clips_per_cpu_second"] = [options.clips / cpu for cpu, _ in pairs]
        record["clips_per_second"] = [options.clips / wall for _, wall in pairs]
        records.append(record)
    rows = [
        {
            "format": row["format"],
            "workers": row["workers"],
            "min clips/CPU s": round(min(row["clips_per_cpu_second"])),
            "median clips/CPU s": round(median(row["clips_per_cpu_second"])),
            "max clips/CPU s": round(max(row["clips_per_cpu_second"])),
            "median clips/s": round(median(row["clips_per_second"])),
        }
        for row in records
    ]
    print(markdown_table(rows, list(rows[0])))
    write_report(options.json, command, records)
