"""Compare a fine-tuned model in PyTorch, in ONNX and in 8-bit ONNX, on the CPU.

    python tools/benchmarks/onnx_export.py MODEL MANIFEST LABELS --data_folder DIR
                                           [--write FILE.json]

MANIFEST and LABELS are the ``eval.csv`` and ``labels.csv`` of a prepare script. The
script reports the mAP of each, its size in MB, and the milliseconds of CPU time for one
clip of the model's length in one thread: a median. Size and time are also those of a
base-size model of 527 classes and 1024 frames; its weights are random.
"""

from __future__ import annotations

import argparse
import platform
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

import eat
from eat.data.dataset import audio_dataset, collate
from eat.data.manifest import read_labels
from eat.errors import exit_on_error
from eat.evaluation.metrics import mean_average_precision
from eat.inference.features import AudioEncoder
from eat.interop.onnx import export_onnx
from eat.interop.pretrained import save_model
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder
from eat.report.markdown import markdown_table
from eat.utils.files import write_json
from eat.utils.versions import versions

COMMAND = "python tools/benchmarks/onnx_export.py RUN/model eval.csv labels.csv"
CALLS = 7  # of which the median time is taken
FRAMES, CLASSES = 1024, 527
Score = Callable[[Tensor], Tensor]  # waveforms [B, S] -> scores [B, C]


def make_base(folder: Path) -> Path:
    """Write a base-size classifier with random weights."""
    torch.manual_seed(0)
    network = EATClassifier(EATEncoder.from_preset("base"), CLASSES)
    frontend = {"mean": -4.268, "std": 4.569, "num_frames": FRAMES}
    config = {"kind": "classifier", **network.config, "frontend": frontend}
    save_model(folder / "base", config, network)
    return folder / "base"


def variants(source: Path, model: AudioEncoder, folder: Path) -> dict[str, tuple]:
    """Return size in bytes and scoring function of each form of a model."""
    size = sum(4 * parameter.numel() for parameter in model.parameters())
    forms: dict[str, tuple[int, Score]] = {"PyTorch": (size, model.tag_batch)}
    for name, int8 in (("ONNX", False), ("ONNX int8", True)):
        path = folder / f"{source.name} {name}.onnx"
        export_onnx(source, path, int8)
        forms[name] = path.stat().st_size, onnx_scores(path)
    return forms


def onnx_scores(path: Path) -> Score:
    """Return a function that scores waveforms, in one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)

    def score(wav: Tensor) -> Tensor:
        """Run the network; the front end is a part of the file."""
        return torch.from_numpy(session.run(["scores"], {"wav": wav.numpy()})[0])

    return score


def cpu_name() -> str:
    """Return the CPU's name and, where Linux tells it, its 8-bit instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    name = re.search(r"model name\s*: (.*)", text)
    vnni = sorted(set(re.findall(r"\b\w*vnni\b", text)))
    return " ".join([name[1] if name else platform.machine(), *vnni])


def milliseconds(score: Score, wav: Tensor) -> float:
    """Return the median CPU time of a call, after one to warm up.

    Unlike the wall clock it hardly depends on what else the machine does.
    """
    times = []
    for _ in range(CALLS + 1):
        started = time.process_time()
        score(wav)
        times.append(1000 * (time.process_time() - started))
    return median(times[1:])


def mean_ap(score: Score, clips: DataLoader) -> float:
    """Return the mAP over clips, which are scored one by one."""
    pairs = [(score(batch.wav), batch.labels) for batch in tqdm(clips, disable=None)]
    scores, targets = (torch.cat(values) for values in zip(*pairs, strict=True))
    return mean_average_precision(scores, targets)


def measure(
    name: str, source: Path, folder: Path, clips: DataLoader | None
) -> list[dict[str, Any]]:
    """Return one row for each form of a model."""
    model = eat.from_pretrained(source, device="cpu")
    generator = torch.Generator().manual_seed(0)
    wav = 0.1 * torch.randn(1, model.max_samples, generator=generator)
    rows = []
    for form, (size, score) in variants(source, model, folder).items():
        row = {"model": name, "form": form, "MB": round(size / 1e6, 1)}
        row["ms per clip"] = round(milliseconds(score, wav), 1)
        row["mAP"] = mean_ap(score, clips) if clips else None
        rows.append(row)
    return rows


@exit_on_error()
def main() -> None:
    """Measure both models; print a table and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder of a fine-tuned model")
    parser.add_argument("manifest", type=Path, help="CSV file of the clips")
    parser.add_argument("labels", type=Path, help="CSV file of the classes")
    parser.add_argument("--data_folder", required=True, help="folder of the recordings")
    parser.add_argument("--write", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds = eat.from_pretrained(options.model, device="cpu").max_seconds
    labels = read_labels(options.labels)
    data = audio_dataset(options.manifest, options.data_folder, labels, seconds)
    clips = DataLoader(data, collate_fn=collate)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = measure("fine-tuned", options.model, folder, clips)
        rows += measure("base, random", make_base(folder), folder, None)
    print(markdown_table(rows, list(rows[0])))
    if options.write:
        found = {"command": COMMAND, "clips": len(data), "rows": rows}
        found |= {"machine": cpu_name()}
        found |= {"onnxruntime": onnxruntime.__version__, **versions()}
        write_json(options.write, found)


if __name__ == "__main__":
    main()
