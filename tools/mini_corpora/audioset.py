"""A mini AudioSet: mixes with several labels, laid out as the real corpus is on disk.

Evaluation mixes are made of other sources than training mixes. ``Drum`` stands above
four kinds of drum, so that labels nest as AudioSet's do.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

from mini_corpora.bank import SAMPLE_RATE, UNLABELED, Bank
from mini_corpora.scenes import Sources, make_scene, sources_of
from mini_corpora.writing import generator, run_jobs, write_text, write_wav

FOLDER = "AudioSet"
#: Kind of sound -> the bank's classes it is made of. The three rarest kinds of
#: percussion are one; plucked strings and choir, rarer still, carry no label.
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
#: Kinds heard in the unbalanced mixes only, where they add no label.
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
#: One id in so many begins with "-" or "_": names that trip up careless scripts.
AWKWARD_ID_EVERY = 16

README = """# A mini AudioSet

Mixes of 2.56 s, 16 kHz, made by tools/make_mini_corpora.py of permissively licensed
recordings (see ATTRIBUTION.md), with the files and formats of AudioSet and 20 labels
of its own. Evaluation mixes are made of other sources than training mixes. The
recordings and labels are not AudioSet's: numbers obtained here compare training
settings with each other, not with published results."""


@dataclass(frozen=True)
class AudioSetSizes:
    """Mixes of each subset, and the length of a mix in seconds."""

    balanced_train: int = 1000
    unbalanced_train: int = 4000
    eval: int = 600
    seconds: float = 2.56


@dataclass(frozen=True)
class Subset:
    """One of the three subsets: what its mixes are made of.

    Attributes
    ----------
    name : str
        ``balanced_train``, ``unbalanced_train`` or ``eval``.
    sources : dict
        Kind -> source group -> recordings.
    semitones : float
        The largest change of pitch of an event.
    mixes : int
        How many to make.
    """

    name: str
    sources: Sources
    semitones: float
    mixes: int


def write_audioset(
    bank: Bank, folder: Path, seed: int, sizes: AudioSetSizes, workers: int
) -> None:
    """Write the mini AudioSet.

    Parameters
    ----------
    bank : Bank
        All clips.
    folder : Path
        Becomes ``AudioSet``: three segment lists, ``class_labels_indices.csv`` and
        ``audio/<subset>/<id>.wav``. Must exist.
    seed : int
        The corpora's seed.
    sizes : AudioSetSizes
        How many mixes, how long.
    workers : int
        Threads at a time; does not change the result.
    """
    for subset in plan_subsets(bank, sizes):
        rows = _write_mixes(subset, folder, seed, sizes, workers)
        _write_segments(folder / f"{subset.name}_segments.csv", rows, sizes, seed)
    lines = [f'{i},{MIDS[label]},"{label}"' for i, label in enumerate(LABELS)]
    write_text(folder / "class_labels_indices.csv", ["index,mid,display_name", *lines])
    write_text(folder / "README.md", [README])


def plan_subsets(bank: Bank, sizes: AudioSetSizes) -> list[Subset]:
    """Say of which sources each subset is made: evaluation has its own.

    Parameters
    ----------
    bank : Bank
        All clips.
    sizes : AudioSetSizes
        How many mixes.
    """
    train, test = bank.select(split="train"), bank.select(split="test")
    named, evaluated = sources_of(train, KINDS), sources_of(test, KINDS)
    everything = sources_of(train, KINDS | UNNAMED_KINDS)
    return [
        Subset("balanced_train", named, 2, sizes.balanced_train),
        Subset("eval", evaluated, 2, sizes.eval),
        Subset("unbalanced_train", everything, 5, sizes.unbalanced_train),
    ]


def _write_mixes(
    subset: Subset, folder: Path, seed: int, sizes: AudioSetSizes, workers: int
) -> list[tuple[str, list[str]]]:
    """Write the mixes of one subset and return their ids and labels."""
    audio_folder = folder / "audio" / subset.name
    audio_folder.mkdir(parents=True)
    samples = round(sizes.seconds * SAMPLE_RATE)

    def write_mix(index: int) -> tuple[str, list[str]]:
        rng = generator(seed, f"{FOLDER}/{subset.name}", index)
        first = "-_" if index % AWKWARD_ID_EVERY == 0 else ID_CHARACTERS
        video_id = first[rng.integers(len(first))] + "".join(
            ID_CHARACTERS[i]
            for i in rng.integers(len(ID_CHARACTERS), size=ID_LENGTH - 1)
        )
        mix, kinds = make_scene(subset.sources, samples, subset.semitones, rng)
        write_wav(audio_folder / f"{video_id}.wav", mix)
        return video_id, labels_of(kinds)

    name = f"{FOLDER} {subset.name}"
    return run_jobs(write_mix, range(subset.mixes), workers, name)


def labels_of(kinds: list[str]) -> list[str]:
    """Return the labels of a mix: its named kinds, and ``Drum`` where one is a drum.

    Parameters
    ----------
    kinds : list of str
        What can be heard.

    Returns
    -------
    list of str
        In alphabetical order; empty if nothing heard has a name.
    """
    labels = [kind for kind in kinds if kind in KINDS]
    if any(kind in CHILDREN for kind in kinds):
        labels.append(PARENT)
    return sorted(labels)


def _write_segments(
    path: Path, rows: list[tuple[str, list[str]]], sizes: AudioSetSizes, seed: int
) -> None:
    """Write one segment list: three comment lines, then the rows sorted by id."""
    used = {label for _, labels in rows for label in labels}
    positives = sum(len(labels) for _, labels in rows)
    lines = [
        f"# Segments csv created by make_mini_corpora, seed {seed}",
        f"# num_ytids={len(rows)}, num_segs={len(rows)}, "
        f"num_unique_labels={len(used)}, num_positive_labels={positives}",
        "# YTID, start_seconds, end_seconds, positive_labels",
    ]
    for video_id, labels in sorted(rows):
        mids = ",".join(MIDS[label] for label in labels)
        lines.append(f'{video_id}, 0.000, {sizes.seconds:.3f}, "{mids}"')
    write_text(path, lines)
