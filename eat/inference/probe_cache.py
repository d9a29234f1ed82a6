"""Features for probes, kept on disk for each model, manifest and set of options."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from eat.data.dataset import ClipDataset, audio_dataset
from eat.data.shards import parse_address
from eat.inference.audio_encoder import AudioEncoder
from eat.inference.probe_features import ProbeFeatures, features_of
from eat.utils.files import remove_temporaries, write_json

FORMAT = 2  # one more when the same settings give other features


def cached_features(
    model: AudioEncoder,
    weights: Mapping[str, Any],
    manifest: Path,
    data_folder: str | os.PathLike[str],
    cache: Path,
    token_layers: Sequence[int] = (),
) -> ProbeFeatures:
    """Return `features_of` a manifest, from the cache if they are there.

    Parameters
    ----------
    model, manifest, data_folder, token_layers
        As in `eat.inference.probe_features.features_of`.
    weights
        What identifies the weights, as JSON values: a checksum, not a path.
    cache
        A folder; each combination of what the numbers depend on has its own in it. The
        labels may change. Audio files are known by size and time of modification.
    """
    data = audio_dataset(manifest, data_folder, None, model.max_seconds)
    settings = {
        "format": FORMAT,
        **weights,
        **model.frontend.config,
        "encoder": model.encoder.config,
        "mask_padding": model.mask_padding,
        "precision": model.precision,
        "device": model.device.type,
        "data_folder": os.path.abspath(data_folder),
        "clips_sha256": data.manifest.ids.sha256 + data.manifest.wavs.sha256,
        "files_sha256": _files_sha256(data),
    }
    text = json.dumps(settings, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = cache / f"{manifest.stem}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    for made in cache.iterdir():
        remove_temporaries(made)  # as large as the features
    write_json(folder / "settings.json", settings)
    return features_of(model, manifest, data_folder, token_layers, folder)


def _files_sha256(data: ClipDataset) -> str:
    """Return a checksum of sizes and times of the audio files or shards."""
    paths = map(data.path, range(len(data)))
    digest = hashlib.sha256()
    for file in dict.fromkeys(getattr(parse_address(p), "shard", p) for p in paths):
        with suppress(OSError):  # reading the clip gives a better error
            found = os.stat(file)
            line = f"{file}\0{found.st_size}\0{found.st_mtime_ns}\0"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()
