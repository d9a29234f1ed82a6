"""A mini ESC-50: ten classes of single recordings in five source-disjoint folds.

A source (sound bank, drum kit, voice, author) is in one fold for all its classes, so
that a fold is tested on sources never heard in training.
"""

from __future__ import annotations

import csv
import string
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mini_corpora.bank import SAMPLE_RATE, Bank, Clip
from mini_corpora.scenes import vary
from mini_corpora.writing import generator, run_jobs, write_text, write_wav

FOLDER = "ESC-50-master"
FOLDS = 5
SECONDS = 5
SEMITONES = 1
#: Category -> the bank's classes it is made of: those with sources for five folds.
CATEGORIES = {
    "auxiliary_percussion": ("Metal_perc", "Shaker", "Wood_perc"),
    "bass_drum": ("Bass_drum",),
    "cymbal": ("Cymbal",),
    "guitar": ("Guitar",),
    "hi_hat": ("Hi-hat",),
    "snare_drum": ("Snare_drum",),
    "sound_effect": ("Sound_effect",),
    "speech": ("Speech",),
    "synthesizer": ("Synthesizer",),
    "tom": ("Tom",),
}
ESC10 = {"guitar", "hi_hat", "speech"}
#: The second sound bank descends from the first: one source.
SAME_SOURCE = {"FluidR3_MSG": "FluidR3"}
#: Numbers of the recordings start here, to have six digits as ESC-50's have.
FIRST_NUMBER = 100001
COLUMNS = "filename fold target category esc10 src_file take".split()

README = """# A mini ESC-50

Clips of 5 s made by tools/make_mini_corpora.py of permissively licensed recordings (see
ATTRIBUTION.md), with ESC-50's files and formats: ten classes, five folds, the same
number of clips of each class in each fold. Short recordings are repeated and padded
with digital silence. Clips of one src_file are takes of one recording; no source of
recordings is in two folds.

Unlike ESC-50, the files are sampled at 16 kHz, and the classes are others: numbers
obtained here compare training settings with each other, not with published results."""


@dataclass(frozen=True)
class ESC50Sizes:
    """Clips of a class in a fold."""

    clips: int = 8


@dataclass(frozen=True)
class Take:
    """One file to be: a clip of the bank, its place in the corpus, its variation."""

    clip: Clip
    row: dict[str, str | int | bool]
    rng: np.random.Generator


def write_esc50(
    bank: Bank, folder: Path, seed: int, sizes: ESC50Sizes, workers: int
) -> None:
    """Write the mini ESC-50.

    Parameters
    ----------
    bank : Bank
        All clips.
    folder : Path
        Becomes ``ESC-50-master``: ``meta/esc50.csv`` and
        ``audio/<fold>-<clip id>-<take>-<target>.wav``. Must exist.
    seed : int
        The corpora's seed.
    sizes : ESC50Sizes
        How many clips.
    workers : int
        Threads at a time; does not change the result.
    """
    (folder / "audio").mkdir()
    (folder / "meta").mkdir()
    takes = plan_takes(bank, seed, sizes)

    def write_take(take: Take) -> None:
        write_wav(folder / "audio" / str(take.row["filename"]), _render(take))

    run_jobs(write_take, takes, workers, "ESC-50")
    with (folder / "meta" / "esc50.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(take.row for take in takes)
    write_text(folder / "README.md", [README])


def source_of(clip: Clip) -> str:
    """Return the source of a clip, which must not be in two folds."""
    return SAME_SOURCE.get(clip.group, clip.group)


def recording_of(clip: Clip) -> tuple[str, str]:
    """Return the recording that a clip was cut from: its group and original name."""
    return clip.group, clip.original.split("@")[0]


def assign_folds(bank: Bank) -> dict[str, int]:
    """Deal the sources into folds, the largest first, each where it is missed most.

    The gain of a source in a fold counts the square roots of a class's recordings up
    to the default number of clips: a class that the fold lacks weighs most.

    Parameters
    ----------
    bank : Bank
        All clips.

    Returns
    -------
    dict of str to int
        Source -> fold, from 1.
    """
    found = defaultdict(set)
    for category, labels in CATEGORIES.items():
        for clip in bank.select(labels=labels).clips:
            found[source_of(clip)].add((category, recording_of(clip)))
    counts = {
        source: Counter(category for category, _ in recordings)
        for source, recordings in found.items()
    }
    enough = ESC50Sizes().clips

    def usable(source: str) -> int:
        return sum(min(enough, n) for n in counts[source].values())

    folds: list[Counter[str]] = [Counter() for _ in range(FOLDS)]
    assigned = {}
    for source in sorted(counts, key=lambda source: (-usable(source), source)):
        gains = [
            sum(
                min(enough, fold[category] + n) ** 0.5
                - min(enough, fold[category]) ** 0.5
                for category, n in counts[source].items()
            )
            for fold in folds
        ]
        best = int(np.argmax(gains))
        folds[best].update(counts[source])
        assigned[source] = best + 1
    return assigned


def plan_takes(bank: Bank, seed: int, sizes: ESC50Sizes) -> list[Take]:
    """Choose the clips of each class and fold and name their files.

    Where a fold has too few clips of a class, the same ones give further takes.

    Parameters
    ----------
    bank : Bank
        All clips.
    seed : int
        The corpora's seed.
    sizes : ESC50Sizes
        How many clips.

    Returns
    -------
    list of Take
        Sorted by file name.
    """
    folds = assign_folds(bank)
    numbers = {
        recording: FIRST_NUMBER + i
        for i, recording in enumerate(sorted({recording_of(c) for c in bank.clips}))
    }
    takes = []
    for category, labels in CATEGORIES.items():
        clips = bank.select(labels=labels).clips
        for fold in range(1, FOLDS + 1):
            here = [clip for clip in clips if folds[source_of(clip)] == fold]
            order = generator(seed, f"{FOLDER}/{category}/{fold}").permutation(
                len(here)
            )
            chosen = [here[order[i % len(here)]] for i in range(sizes.clips)]
            takes += _name_takes(chosen, category, fold, numbers, seed)
    return sorted(takes, key=lambda take: str(take.row["filename"]))


def _name_takes(
    clips: list[Clip],
    category: str,
    fold: int,
    numbers: dict[tuple[str, str], int],
    seed: int,
) -> list[Take]:
    """Name the files of a class in a fold, with a letter for each take."""
    target = list(CATEGORIES).index(category)
    taken: Counter[int] = Counter()
    takes = []
    for i, clip in enumerate(clips):
        number = numbers[recording_of(clip)]
        letter = string.ascii_uppercase[taken[number]]
        taken[number] += 1
        row = {
            "filename": f"{fold}-{number}-{letter}-{target}.wav",
            "fold": fold,
            "target": target,
            "category": category,
            "esc10": category in ESC10,
            "src_file": number,
            "take": letter,
        }
        rng = generator(seed, f"{FOLDER}/{category}/{fold}", i + 1)
        takes.append(Take(clip, row, rng))
    return takes


def _render(take: Take) -> np.ndarray:
    """Repeat the varied recording 2 to 5 times, as it fits, amid digital silence."""
    samples = SECONDS * SAMPLE_RATE
    event = vary(take.clip.audio, SEMITONES, take.rng)
    audio = np.zeros(samples, dtype=np.float32)
    start = 0
    for _ in range(take.rng.integers(2, 6)):
        if start + len(event) > samples:
            break
        audio[start : start + len(event)] = event
        start += len(event) + int(take.rng.uniform(0.1, 0.6) * SAMPLE_RATE)
    return audio
