"""`eat features`: write the features of files, folders or a manifest."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

from eat.errors import ExperimentError, printable
from eat.utils.arguments import (
    integer,
    layer_numbers,
    number,
    option_errors,
    path,
)
from eat.utils.parts import add_part_options

if TYPE_CHECKING:
    from eat.inference.extraction import Extraction

# Ranks wait this long for the slowest one; that one has exited is noticed at once.
TIMEOUT = timedelta(days=30)
ENCODING = (
    *("granularity", "pooling", "layers", "window", "overlap", "hop_ms", "pad_to"),
)
OVERRIDES = {
    "num_frames": integer(16),
    "norm_mean": number(-1000, 1000),
    "norm_std": number(1e-6, 1000),
}
OTHER_SUFFIXES = (".npz", ".h5", ".hdf5", ".json", ".txt", ".tsv", ".pt", ".pkl")

HELP = """
PATH is an audio file, a folder (searched with its subfolders) or a manifest (.csv) of
the prepare scripts. What is written depends on --out:

  F.npy      [clips, D] float32, a row per clip, NaN if it cannot be read
  F.parquet  a row per clip or frame: path, start, end (in seconds), features (a list)
  F.csv      the same, with the features in columns f0, f1, ...
  F.jsonl    the same, one JSON object per line
  FOLDER     features.npy as above; of frames and patches features/PATH.npy [T, D] for
             each clip, and frames.csv: path, index, start, end

With several layers the arrays have an axis for them, [clips, L, D] and [L, T, D], and
the tables a column. FOLDER (or F.npy.info) also has clips.csv, all clips with the
reasons for which some have no features, and features.json, the settings.

Re-run the same command to resume. To use several processes:

  torchrun --nproc_per_node=4 -m eat.cli features MODEL PATH --out OUT
  eat features MODEL PATH --out OUT --part 3/16     # one of 16 independent jobs
  eat features MODEL PATH --out OUT --merge 16      # names the jobs that are missing

The exit status is 0 if all clips have features, and 1 if some could not be read (the
others are written) or on an error.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = HELP
    add = parser.add_argument
    add("model", metavar="MODEL", help="model folder, .pt file or Hugging Face folder")
    add("paths", nargs="+", metavar="PATH", help="audio file, folder or manifest")
    add("--out", type=path, required=True, help="output file or folder")
    kinds = ("clip", "frames", "patches")
    of = "a vector per clip, per 160 ms, or per 160 ms and 16 mel bins"
    add("--granularity", choices=kinds, default="clip", help=of)
    pooled = "of a clip: the CLS token (default), the mean of the patches, or both"
    add("--pooling", choices=("cls", "mean", "both"), help=pooled)
    which = "a layer (default: -1, the last), a list (4,7; --layers=-4,-1), or all"
    add("--layers", type=layer_numbers, default=-1, metavar="L", help=which)
    add(
        "--window",
        type=float,
        metavar="S",
        help="seconds encoded at a time, at most the model's",
    )
    add("--overlap", type=float, default=0.0, help="share of a window, 0 to below 1")
    add("--hop_ms", type=integer(10, 160), help="time between frames (default: 160)")
    padded = "pad short clips to the model's length, or not (default: as in training)"
    add("--pad_to", choices=("model", "clip"), help=padded)
    which = "of a pre-trained checkpoint"
    add("--weights", choices=("student", "teacher"), default="student", help=which)
    add("--data_root", help="folder of the recordings of a manifest")
    of = "clips per batch (default: by model and device)"
    add("--batch_size", type=integer(1), help=of)
    workers = "threads per process that read clips (default: by CPU cores)"
    add("--num_workers", type=integer(0, 128), help=workers)
    add_part_options(parser)
    add("--device", help="cpu or cuda, for example (default: a GPU if any)")
    precisions = ("fp32", "bf16")
    add("--precision", choices=precisions, default="fp32", help="of the encoder")
    for name, kind in OVERRIDES.items():
        add(f"--{name}", type=kind, help="override the checkpoint's value")


def run(options: argparse.Namespace) -> int:
    """Extract the features; return 1 if clips have none, otherwise 0."""
    _check(options)

    from eat.inference.clip_list import list_clips
    from eat.interop.file_kinds import weights_checksum
    from eat.utils.allocator import keep_freed_memory

    keep_freed_memory()  # before any thread, which would get memory of its own
    clips = list_clips(options.paths, options.data_root)
    # While torch is imported and the model loaded.
    checksum = ThreadPoolExecutor(1).submit(weights_checksum, options.model)

    import torch

    from eat.inference.extraction import extract_features
    from eat.inference.features import from_pretrained
    from eat.utils.distributed import require_safe_restarts, shutdown

    device = _device(options.device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        require_safe_restarts()
        torch.distributed.init_process_group("gloo", timeout=TIMEOUT)
    model = from_pretrained(
        options.model,
        options.weights,
        device,
        options.precision,
        mean=options.norm_mean,
        std=options.norm_std,
        num_frames=options.num_frames,
    )
    encoding = {name: getattr(options, name) for name in ENCODING}
    with option_errors():
        model.encoding(**encoding)
    found = extract_features(
        model,
        clips,
        options.out,
        options.model,
        checksum.result(),
        options.weights,
        options.batch_size,
        options.num_workers,
        options.part,
        **encoding,
    )
    shutdown()
    if int(os.environ.get("RANK", 0)) > 0:
        return 0
    _report(found, options)
    return 1 if found.failed else 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what can be known to be wrong before torch is imported."""
    for given in (options.model, *options.paths):
        if not os.path.lexists(given):
            raise ExperimentError(f"{given}: no such file or folder (check the path)")
    out, suffix = options.out, options.out.suffix.lower()
    if suffix in OTHER_SUFFIXES:
        raise ExperimentError(
            f"--out {out}: the suffixes of files are .npy, .parquet, .csv and .jsonl "
            "(give one of these, or the name of a folder)"
        )
    if suffix == ".npy" and options.granularity != "clip":
        raise ExperimentError(
            f"--out {out}: clips have different numbers of {options.granularity} (give "
            "a folder, for one .npy each, or another suffix)"
        )


def _device(name: str | None) -> str | None:
    """Return the device of this process; each process has a GPU of its own."""
    import torch

    if name == "cuda" or (name is None and torch.cuda.is_available()):
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return name


def _report(found: Extraction, options: argparse.Namespace) -> None:
    """Print what has been done."""
    index, parts = options.part
    if found.complete:
        text = "complete" if found.new else "complete, nothing to do"
    else:
        text = f"part {index} of {parts} is complete; {found.missing}"
    print(printable(f"{options.out}: {text}"))
    if found.failed:
        where = f"reasons: {found.clips}" if found.complete else "of this part"
        print(printable(f"failed: {found.failed} clips ({where})"), file=sys.stderr)
