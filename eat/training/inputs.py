"""Checksums of what decides a run's numbers but is no setting: clips, models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sized
from pathlib import Path

import numpy as np
from speechbrain.utils.distributed import if_main_process

from eat.data.audio_fingerprint import audio_fingerprint
from eat.data.dataset import ClipDataset
from eat.data.manifest import LabelSet
from eat.data.samplers import Weights
from eat.experiment.fingerprint import fingerprint
from eat.utils.distributed import all_gather_objects
from eat.utils.files import sha256_file

MODEL_FILES = {".json", ".safetensors", ".pt", ".bin"}


def run_fingerprint(
    output_folder: Path,
    clip_sets: Mapping[str, Sized | None],
    sampler: object,
    pretrained: str | None,
) -> dict[str, object]:
    """Return what must not change within a run, on all ranks as on the first.

    Parameters
    ----------
    output_folder
        The run's folder, whose settings are included.
    clip_sets
        All lists of clips that the run uses, by name.
    sampler
        Draws the training clips; its ``weights``, if it has any, are included.
    pretrained
        Model file or folder that the weights were initialized from, if any.
    """
    inputs: dict[str, object] = {}
    if if_main_process():  # it reads files
        inputs = clip_checksums(clip_sets)
        if (weights := getattr(sampler, "weights", None)) is not None:
            # Those computed from the labels depend on these shares only.
            weights = getattr(weights, "shares", weights)
            inputs["class weights SHA-256"] = weights_checksum(weights)
        if pretrained:
            inputs["pretrained SHA-256"] = model_checksum(pretrained)
    return fingerprint(output_folder, all_gather_objects(inputs)[0])


def clip_checksums(clip_sets: Mapping[str, Sized | None]) -> dict[str, object]:
    """Return number, ids, labels, classes and audio of named lists of clips.

    A list that is no `ClipDataset` counts by its length.
    """
    found: dict[str, object] = {}
    audio: dict[tuple, dict[str, object]] = {}  # lists may occur under several names
    for name, clips in clip_sets.items():
        if clips is None:
            continue
        found[f"{name} clips"] = len(clips)
        if not isinstance(clips, ClipDataset):
            continue
        found[f"{name} clips SHA-256"] = clips.fingerprint()
        if clips.label_set is not None:
            found[f"{name} classes SHA-256"] = class_checksum(clips.label_set)
        key = clips.fingerprint(), clips.data_root
        if key not in audio:
            audio[key] = audio_fingerprint(clips)
        found |= {f"{name} audio {part}": value for part, value in audio[key].items()}
    return found


def class_checksum(labels: LabelSet) -> str:
    """Return the SHA-256 of classes, in order."""
    return hashlib.sha256(repr((labels.ids, labels.names)).encode()).hexdigest()


def weights_checksum(weights: Weights) -> str:
    """Return the SHA-256 of the weights `[M]` of a sampler."""
    return hashlib.sha256(np.asarray(weights[:]).tobytes()).hexdigest()


def model_checksum(path: str | Path) -> str | None:
    """Return the SHA-256 of a model file or of the files of a model folder.

    None if there is nothing at the path, as for ``none``.
    """
    path = Path(path)
    files = [path] if path.is_file() else []
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in MODEL_FILES)
    parts = [f"{file.name} {sha256_file(file)}" for file in files if file.is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest() if parts else None
