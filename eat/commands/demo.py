"""``eat demo``: a static web page that runs a model in the browser."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eat.errors import ExperimentError
from eat.utils.files import write_json

if TYPE_CHECKING:
    from eat.inference.features import AudioEncoder

SITE = Path(__file__).parents[1] / "demo"
# The files of the npm package onnxruntime-web that the page needs, and where a page
# without them finds them.
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
RUNTIME_URL = "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = (
        "Write a web page that tags sound in the browser, with any static web server:\n"
        "the sound never leaves the visitor's device. A model without classes needs\n"
        "--neighbors."
    )
    parser.add_argument("model", metavar="MODEL", help="a checkpoint")
    parser.add_argument("out", metavar="FOLDER", help="folder to write; must not exist")
    parser.add_argument(
        "--int8",
        action="store_true",
        help="8-bit weights: a quarter of the download, for a small loss of accuracy",
    )
    parser.add_argument(
        "--neighbors",
        metavar="SOUNDS",
        type=Path,
        help="folder of recordings, copied into the page, which shows the most similar",
    )
    parser.add_argument(
        "--runtime",
        metavar="PACKAGE",
        type=Path,
        help="unpacked npm package onnxruntime-web to copy ONNX Runtime from; by "
        "default the page loads it from cdn.jsdelivr.net",
    )


def run(options: argparse.Namespace) -> None:
    """Write the page; the folder appears when all of it is there."""
    from eat.inference.features import from_pretrained

    out = Path(options.out)
    if os.path.lexists(out):
        raise ExperimentError(f"{out}: exists (remove it, or give another folder)")
    runtime = find_runtime(options.runtime)
    sounds = find_sounds(options.neighbors)
    model = from_pretrained(options.model)
    if model.classifier is None and not sounds:
        raise ExperimentError(
            f"{options.model}: has no classes to show (give --neighbors SOUNDS, or a "
            "fine-tuned checkpoint)"
        )
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=out.absolute().parent, prefix=f".{out.name}."
    ) as folder:
        site = Path(folder) / "site"
        write_site(site, options, model, runtime, sounds)
        site.rename(out)
    print(
        f"{out}: written. To see it, run\n"
        f"    python -m http.server --directory {out}\n"
        "and open http://localhost:8000"
    )


def find_runtime(package: Path | None) -> list[Path]:
    """Return the files of ONNX Runtime in an unpacked npm package."""
    if package is None:
        return []
    files = [package / "dist" / name for name in RUNTIME]
    for file in files:
        if not file.is_file():
            raise ExperimentError(
                f"{file}: no such file (unpack what `npm pack onnxruntime-web` writes, "
                "and give its folder 'package')"
            )
    return files


def find_sounds(folder: Path | None) -> list[Path]:
    """Return the audio files in a folder, sorted."""
    from eat.commands.audio_files import audio_files

    if folder is None:
        return []
    if not folder.is_dir():
        raise ExperimentError(f"{folder}: no such folder (check --neighbors)")
    return [Path(name) for name in audio_files([str(folder)])]


def write_site(
    site: Path,
    options: argparse.Namespace,
    model: AudioEncoder,
    runtime: Sequence[Path],
    sounds: Sequence[Path],
) -> None:
    """Write page, model, runtime and recordings."""
    from eat.interop.onnx import export_onnx
    from eat.model.patching import PATCH

    shutil.copytree(SITE, site, copy_function=shutil.copyfile)
    export_onnx(options.model, site / "model.onnx", options.int8)
    if runtime:
        (site / "runtime").mkdir()
        for file in runtime:
            shutil.copyfile(file, site / "runtime" / file.name)
    neighbors = write_neighbors(site, model, options.neighbors, sounds)
    about = "An Efficient Audio Transformer, running in your browser."
    labels: Sequence[str] | None = None
    if model.classifier:
        numbers = map(str, range(model.classifier.head.out_features))
        labels = model.labels or [*numbers]
        about = about.replace(",", f" for {len(labels)} classes,")
    description = {
        "title": "EAT in the browser",
        "about": about,
        "labels": labels,
        "frames": model.frontend.num_frames // PATCH,
        "runtime": "runtime/" if runtime else RUNTIME_URL,
        "neighbors": neighbors,
    }
    write_json(site / "model.json", description)


def write_neighbors(
    site: Path, model: AudioEncoder, folder: Path, sounds: Sequence[Path]
) -> list[dict[str, str]]:
    """Copy the recordings and write their features `[M, D]`."""
    import numpy as np
    from tqdm import tqdm

    if not sounds:
        return []
    (site / "sounds").mkdir()
    features: list[np.ndarray] = []
    listed: list[dict[str, str]] = []
    encoded = model.encode_files(sounds, on_error="skip")
    for found in tqdm(encoded, "neighbors", len(sounds), unit="file", disable=None):
        # Numbers instead of names, which might be no valid addresses.
        copy = f"sounds/{len(listed):05d}{found.path.suffix.lower()}"
        shutil.copyfile(found.path, site / copy)
        name = found.path.relative_to(folder).as_posix()
        listed.append({"name": name, "file": copy})
        features.append(found.numpy())
    if not listed:
        raise ExperimentError(f"{folder}: no recording can be read")
    np.stack(features).astype("<f4").tofile(site / "neighbors.bin")
    return listed
