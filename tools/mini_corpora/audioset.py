"""A mini AudioSet: multi-label mixes, on disk in the real corpus's layout.

Evaluation mixes come from different sources than training mixes. ``Drum`` is the parent
of four labels, so that labels nest as in AudioSet's ontology.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mini_corpora.bank import SAMPLE_RATE, UNLABELED, Clip
from mini_corpora.scenes import (
    MAX_EVENTS,
    Groups,
    draw_kinds,
    group_recordings,
    make_scene,
)
from mini_corpora.writing import AudioPlan, generator, write_corpus

FOLDER = "AudioSet"
#: Kind of sound -> classes of the bank. Three rare kinds of percussion are merged.
KINDS = {
    "Auxiliary percussion": ("Metal_perc", "Shaker", "Wood_perc"),
    "Bass drum": ("Bass_drum",),
    "Bass guitar": ("Bass_guitar",),
    "Bowed string instrument": ("Bowed_string",),
    "Brass instrument": ("Brass",),
    "Cymbal": ("Cymbal",),
    "Flute": ("Flute",),
    "Guitar": ("Guitar",),
    "Hand drum": ("Hand_drum",),
    "Hi-hat": ("Hi-hat",),
    "Keyboard": ("Keyboard",),
    "Mallet percussion": ("Mallet",),
    "Organ": ("Organ",),
    "Reed instrument": ("Reed",),
    "Snare drum": ("Snare_drum",),
    "Sound effect": ("Sound_effect",),
    "Speech": ("Speech",),
    "Synthesizer": ("Synthesizer",),
    "Tom": ("Tom",),
}
#: Kinds without a label, in unbalanced mixes only.
UNNAMED_KINDS = {
    "(choir)": ("Choir",),
    "(plucked string)": ("Plucked",),
    "(other)": (UNLABELED,),
}
PARENT = "Drum"
CHILDREN = ("Bass drum", "Hand drum", "Snare drum", "Tom")
LABELS = sorted([*KINDS, PARENT])
MIDS = {label: f"/m/mini{i + 1:02d}" for i, label in enumerate(LABELS)}

ID_CHARACTERS = string.ascii_letters + string.digits + "-_"
ID_LENGTH = 11
#: Every 16th id begins with "-" or "_", as some of AudioSet's do.
AWKWARD_ID_EVERY = 16
#: Subset -> largest pitch shift of an event, in semitones.
SEMITONES = {"balanced_train": 2, "eval": 2, "unbalanced_train": 5}


@dataclass(frozen=True)
class AudioSetSizes:
    """Number of mixes in each subset, and how long and how full a mix is."""

    balanced_train: int = 1000
    unbalanced_train: int = 4000
    eval: int = 600
    seconds: float = 2.56
    max_events: int = MAX_EVENTS  # of each kind of sound in a mix


def write_audioset(
    clips: Sequence[Clip], folder: Path, seed: int, sizes: AudioSetSizes, workers: int
) -> None:
    """Write the mini AudioSet into an existing folder.

    The result is three segment lists, ``class_labels_indices.csv`` and
    ``audio/<subset>/<id>.wav``; it does not depend on the number of `workers`.
    """
    audio: AudioPlan = {}
    classes = [f'{i},{MIDS[label]},"{label}"\n' for i, label in enumerate(LABELS)]
    header = "index,mid,display_name\n"
    texts = {"class_labels_indices.csv": "".join([header, *classes])}
    for subset, sources in subset_sources(clips).items():
        labels = {}
        for index in range(getattr(sizes, subset)):
            rng = generator(seed, f"{FOLDER}/{subset}", index)
            clip_id = _draw_id(index, rng)
            kinds = draw_kinds(sources, rng)
            labels[clip_id] = labels_of(kinds)
            audio[f"audio/{subset}/{clip_id}.wav"] = partial(
                make_scene,
                [sources[kind] for kind in kinds],
                round(sizes.seconds * SAMPLE_RATE),
                SEMITONES[subset],
                rng,
                sizes.max_events,
            )
        texts[f"{subset}_segments.csv"] = _segment_list(labels, sizes.seconds, seed)
    write_corpus(FOLDER, folder, audio, texts, workers)


def subset_sources(clips: Sequence[Clip]) -> dict[str, dict[str, Groups]]:
    """Return the recordings of each subset, by kind of sound and source group."""
    train = [clip for clip in clips if clip.split == "train"]
    test = [clip for clip in clips if clip.split == "test"]
    return {
        "balanced_train": group_recordings(train, KINDS),
        "eval": group_recordings(test, KINDS),
        "unbalanced_train": group_recordings(train, KINDS | UNNAMED_KINDS),
    }


def labels_of(kinds: Sequence[str]) -> list[str]:
    """Return the labels of a mix in alphabetical order: named kinds and ``Drum``."""
    labels = [kind for kind in kinds if kind in KINDS]
    if any(kind in CHILDREN for kind in kinds):
        labels.append(PARENT)
    return sorted(labels)


def _draw_id(index: int, rng: np.random.Generator) -> str:
    """Draw the id of a mix, which looks like a YouTube id."""
    first = "-_" if index % AWKWARD_ID_EVERY == 0 else ID_CHARACTERS
    start = first[rng.integers(len(first))]
    rest = rng.integers(len(ID_CHARACTERS), size=ID_LENGTH - 1)
    return start + "".join(ID_CHARACTERS[i] for i in rest)


def _segment_list(labels: dict[str, list[str]], seconds: float, seed: int) -> str:
    """Return a segment list: three comment lines, then the ids in sorted order."""
    used = {label for found in labels.values() for label in found}
    lines = [
        f"# Segments csv created by make_mini_corpora, seed {seed}",
        f"# num_ytids={len(labels)}, num_segs={len(labels)}, num_unique_labels="
        f"{len(used)}, num_positive_labels={sum(map(len, labels.values()))}",
        "# YTID, start_seconds, end_seconds, positive_labels",
    ]
    for clip_id, found in sorted(labels.items()):
        mids = ",".join(MIDS[label] for label in found)
        lines.append(f'{clip_id}, 0.000, {seconds:.3f}, "{mids}"')
    return "\n".join(lines) + "\n"
