"""Features for probes, kept on disk for each model, manifest and set of options."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eat.data.compact_manifest import CompactManifest
from eat.data.manifest import LabelSet
from eat.inference.audio_encoder import AudioEncoder
from eat.inference.probe_features import ProbeFeatures, features_of
from eat.utils.files import write_json


def cached_features(
    model: AudioEncoder,
    weights: Mapping[str, Any],
    manifest: Path,
    data_folder: str | os.PathLike[str],
    labels: LabelSet,
    cache: Path,
    token_layers: Sequence[int] = (),
) -> ProbeFeatures:
    """Return `features_of` a manifest, from the cache if they are there.

    Parameters
    ----------
    model, manifest, data_folder, labels, token_layers
        As in `eat.inference.probe_features.features_of`.
    weights
        What identifies the weights, as JSON values: a checksum, not a path.
    cache
        A folder; each combination of what the numbers depend on has its own in it. The
        labels may change.
    """
    clips = CompactManifest(manifest)
    settings = {
        **weights,
        **model.frontend.config,
        "encoder": model.encoder.config,
        "mask_padding": model.mask_padding,
        "precision": model.precision,
        "device": model.device.type,
        "data_folder": os.path.abspath(data_folder),
        "clips_sha256": clips.ids.sha256 + clips.wavs.sha256,
    }
    text = json.dumps(settings, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = cache / f"{manifest.stem}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "settings.json", settings)
    return features_of(model, manifest, data_folder, labels, token_layers, folder)
