"""`eat neighbors`: find the recordings of a folder that are most similar to a file."""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eat.errors import ExperimentError, printable
from eat.utils.arguments import integer, option_errors

if TYPE_CHECKING:
    import numpy as np

    from eat.inference.features import AudioEncoder

HELP = """
FOLDER is a folder of recordings, which is searched with its subfolders, or, to compare
with the same recordings again and again, what `eat features MODEL ... --out FOLDER`
has written for the same MODEL.

The similarity is the cosine between the features of clips, from -1 to 1. Each feature
is standardized first: its mean over FOLDER is 0, its standard deviation 1.
"""
ARRAY, CLIPS, RECORD = "features.npy", "clips.csv", "features.json"
# Settings of the record that a file must be encoded with to be compared.
LOADING = ("weights", "mean", "std", "num_frames", "precision")
ENCODING = ("pooling", "layers", "window", "overlap", "pad_to")


class Gallery(NamedTuple):
    """The recordings of a folder: their paths, and features `[M, D]`."""

    paths: list[str]
    features: np.ndarray
    loading: dict[str, Any]  # options of `from_pretrained`
    encoding: dict[str, Any]  # options of `encode_file`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = HELP
    add = parser.add_argument
    add("model", metavar="MODEL", help="model folder, .pt file or Hugging Face folder")
    add("file", metavar="FILE", help="audio file to find similar ones of")
    add("folder", metavar="FOLDER", help="folder of recordings or of their features")
    add("--top", type=integer(1), default=10, help="number of recordings (default: 10)")
    add("--json", action="store_true", help="print a JSON object per recording")
    pooled = "of a clip: the CLS token (default), the mean of the patches, or both"
    add("--pooling", choices=("cls", "mean", "both"), help=pooled)
    add("--layers", type=int, metavar="L", help="a layer (default: -1, the last)")
    add("--batch_size", type=integer(1), help="clips per batch (default: by device)")
    add("--device", help="cpu or cuda, for example (default: a GPU if any)")


def run(options: argparse.Namespace) -> int:
    """Print the most similar recordings; return 1 if one could not be read."""
    import numpy as np

    from eat.inference.features import from_pretrained

    wanted = {"pooling": options.pooling, "layers": options.layers}
    chosen = {name: value for name, value in wanted.items() if value is not None}
    gallery, unreadable = Gallery([], np.empty(0), {}, chosen), 0
    if computed := os.path.exists(os.path.join(options.folder, RECORD)):
        gallery = read_features(Path(options.folder), options.model, chosen)
    model = from_pretrained(options.model, device=options.device, **gallery.loading)
    with option_errors():
        query = model.encode_file(options.file, **gallery.encoding).numpy()
    if not computed:
        gallery, unreadable = encode_folder(model, options, chosen)
    similar = similarities(query, gallery.features)
    shown = 0
    for row in (-similar).argsort(kind="stable"):
        path, similarity = gallery.paths[row], float(similar[row])
        if shown == options.top or similarity != similarity:
            break
        if os.path.exists(path) and os.path.samefile(path, options.file):
            continue
        shown += 1
        if options.json:
            print(json.dumps({"path": path, "similarity": similarity}))
        else:
            print(f"{similarity:7.3f}  {printable(path)}")
    return int(unreadable > 0)


def encode_folder(
    model: AudioEncoder, options: argparse.Namespace, chosen: dict[str, Any]
) -> tuple[Gallery, int]:
    """Encode the recordings of a folder; return how many could not be read, too."""
    import numpy as np
    from tqdm import tqdm

    from eat.audio.folders import audio_files

    if not os.path.isdir(options.folder):
        raise ExperimentError(f"{options.folder}: not a folder (give an existing one)")
    paths = list(audio_files([options.folder]))
    encoded = model.encode_files(
        paths, batch_size=options.batch_size, on_error="skip", **chosen
    )
    found = list(tqdm(encoded, "features", len(paths), unit="file", disable=None))
    if not found:
        raise ExperimentError(
            f"{options.folder}: none of {len(paths)} recordings can be read (see above)"
        )
    names = [str(features.path) for features in found]
    array = np.stack([features.numpy() for features in found])
    return Gallery(names, array, {}, chosen), len(paths) - len(found)


def read_features(folder: Path, model: str, chosen: dict[str, Any]) -> Gallery:
    """Read the output of `eat features`, which must be of this model and options."""
    import numpy as np

    from eat.interop.file_kinds import weights_checksum

    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        settings, sources = record["settings"], record["paths"]
        with open(folder / CLIPS, encoding="utf-8", newline="") as file:
            paths = [locate(row["path"], sources) for row in csv.DictReader(file)]
        features = np.load(folder / ARRAY, mmap_mode="r")
        loading = {name: settings[name] for name in LOADING if name in settings}
        encoding = {name: settings[name] for name in ENCODING if name in settings}
        checksum = settings["checkpoint_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExperimentError(
            f"{folder}: no complete features of clips, {type(error).__name__} {error} "
            f"(run `eat features {model} RECORDINGS --out {folder}`)"
        ) from error
    if features.ndim != 2 or len(features) != len(paths):
        raise ExperimentError(
            f"{folder}: features of shape {list(features.shape)} for {len(paths)} "
            "clips (a vector for each is needed: extract them from one layer)"
        )
    if checksum != weights_checksum(Path(model)):
        raise ExperimentError(
            f"{folder}: features of another model than {model} (give that model, or "
            "the folder of the recordings)"
        )
    for name, value in chosen.items():
        if (found := encoding.get(name)) != value:
            raise ExperimentError(
                f"{folder}: features of {name} {found}, not {value} (omit "
                f"--{name}, or give the folder of the recordings)"
            )
    return Gallery(paths, features, loading, encoding)


def locate(clip: str, sources: Sequence[str]) -> str:
    """Return the file of a clip of `eat features`; its id if the file has moved."""
    places = ((s if os.path.isdir(s) else os.path.dirname(s)) for s in sources)
    paths = (os.path.join(place, clip) for place in places)
    return next(filter(os.path.isfile, paths), clip)


def similarities(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Return the cosines `[M]` between `[D]` and `[M, D]`, standardized by the latter.

    NaN for clips without features.
    """
    import numpy as np

    known = np.isfinite(gallery).all(axis=1)
    mean, std = gallery[known].mean(axis=0), gallery[known].std(axis=0)
    if known.sum() < 2:
        mean, std = np.zeros_like(mean), np.ones_like(std)  # nothing to compare with
    scale = np.where(std > 0, std, 1)
    query, gallery = (query - mean) / scale, (gallery - mean) / scale
    norms = np.linalg.norm(gallery, axis=1) * np.linalg.norm(query)
    return gallery @ query / np.maximum(norms, np.finfo(np.float32).tiny)
