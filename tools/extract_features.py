"""Write one feature vector for each clip of a manifest, with any checkpoint.

    python tools/extract_features.py MANIFEST OUT_FOLDER --data_root DIR
                                     --checkpoint PATH [--pooling cls|mean]
    torchrun --nproc_per_node=2 tools/extract_features.py ...

OUT_FOLDER receives features.npy [clips, width], clips.csv and features.json, see
docs/use.md. Re-run the same command to resume an interrupted extraction; any
number of processes gives the same features.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch

from eat.errors import ExperimentError, exit_on_error, printable
from eat.inference.extraction import extract_features
from eat.inference.features import PRECISIONS, from_pretrained
from eat.utils.arguments import integer, number
from eat.utils.distributed import require_safe_restarts, shutdown

# Ranks wait this long for the slowest one; that one has exited is noticed at once.
TIMEOUT = timedelta(days=30)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("manifest", help="CSV file written by a prepare script")
    add("folder", type=Path, metavar="OUT_FOLDER", help="output folder")
    add("--data_root", required=True, help="folder of the recordings")
    formats = "model folder, official .pt file or Hugging Face folder"
    add("--checkpoint", required=True, help=formats)
    pooled = "the CLS token, or the mean of the patch tokens"
    add("--pooling", choices=("cls", "mean"), default="cls", help=pooled)
    add("--batch_size", type=integer(1), default=32, help="clips per batch")
    workers = "data workers per process"
    add("--num_workers", type=integer(0, 1024), default=0, help=workers)
    add("--device", help="for instance cpu or cuda (default: a GPU if there is one)")
    add("--precision", choices=PRECISIONS, default="fp32", help="of the encoder")
    overrides = {
        "num_frames": integer(16),
        "norm_mean": number(-1000, 1000),
        "norm_std": number(1e-6, 1000),
    }
    for name, kind in overrides.items():
        add(f"--{name}", type=kind, help="override the checkpoint's value")
    return parser.parse_args(argv)


def _device(name: str | None) -> torch.device:
    """Return the device of this process; each process has a GPU of its own."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        probe = torch.zeros(1, device=name)
        probe.item()  # not of "meta"
        return probe.device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ExperimentError(
            f"--device {name}: {reason} (use cpu, cuda or cuda:N)"
        ) from None


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> None:
    """Extract the features; report how many clips could not be read."""
    options = _parse(argv)
    device = _device(options.device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        require_safe_restarts()
        torch.distributed.init_process_group("gloo", timeout=TIMEOUT)
    model = from_pretrained(
        options.checkpoint,
        device=device,
        precision=options.precision,
        mean=options.norm_mean,
        std=options.norm_std,
        num_frames=options.num_frames,
    )
    unreadable = extract_features(
        options.manifest,
        options.folder,
        options.data_root,
        options.checkpoint,
        model,
        options.pooling,
        options.batch_size,
        options.num_workers,
    )
    shutdown()
    if int(os.environ.get("RANK", 0)) > 0:
        return
    note = ", nothing to do" if unreadable is None else ""
    print(printable(f"{options.folder}: complete{note}"))
    if unreadable:
        reasons = f"their rows are NaN (reasons: {options.folder / 'clips.csv'})"
        print(printable(f"{unreadable} unreadable clips, {reasons}"))


if __name__ == "__main__":
    main()
