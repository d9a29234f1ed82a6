"""A mini ESC-50: ten classes of single recordings in five source-disjoint folds.

A source (sound bank, drum kit, voice, author) is in the same fold for all its classes,
so that each fold is tested on sources that are not in its training folds.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mini_corpora.bank import SAMPLE_RATE, Clip
from mini_corpora.scenes import vary
from mini_corpora.writing import AudioPlan, generator, write_corpus

FOLDER = "ESC-50-master"
FOLDS = 5
SECONDS = 5
SEMITONES = 1
#: Category -> classes of the bank: those with enough sources for five folds.
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
#: First recording number; like ESC-50's, the numbers have six digits.
FIRST_NUMBER = 100001


@dataclass(frozen=True)
class ESC50Sizes:
    """Number of clips of each class in each fold."""

    clips: int = 8


@dataclass(frozen=True)
class Take:
    """One file of the corpus: a clip of the bank and the file's row in the table."""

    clip: Clip
    row: dict[str, str | int | bool]
    rng: np.random.Generator


def write_esc50(
    clips: Sequence[Clip], folder: Path, seed: int, sizes: ESC50Sizes, workers: int
) -> None:
    """Write the mini ESC-50 into an existing folder.

    The result is ``meta/esc50.csv`` and ``audio/<fold>-<clip id>-<take>-<target>.wav``;
    it does not depend on the number of `workers`.
    """
    takes = plan_takes(clips, seed, sizes)
    audio: AudioPlan = {
        f"audio/{take.row['filename']}": partial(_render, take) for take in takes
    }
    table = [list(takes[0].row), *(take.row.values() for take in takes)]
    lines = [",".join(map(str, row)) + "\n" for row in table]
    texts = {"meta/esc50.csv": "".join(lines)}
    write_corpus(FOLDER, folder, audio, texts, workers)


def recording_of(clip: Clip) -> tuple[str, str]:
    """Return the recording that a clip was cut from: its group and original name."""
    return clip.group, clip.original.split("@")[0]


def plan_takes(clips: Sequence[Clip], seed: int, sizes: ESC50Sizes) -> list[Take]:
    """Choose the clips of each class and fold; return their takes by file name.

    Where a fold has too few clips of a class, clips are used for more than one take.
    """
    recordings = sorted({recording_of(clip) for clip in clips})
    numbers = {r: FIRST_NUMBER + i for i, r in enumerate(recordings)}
    takes = []
    for target, (category, labels) in enumerate(CATEGORIES.items()):
        found = [clip for clip in clips if clip.label in labels]
        for fold in range(1, FOLDS + 1):
            name = f"{FOLDER}/{category}/{fold}"
            usable = [clip for clip in found if clip.fold == str(fold)]
            order = generator(seed, name).permutation(len(usable))
            taken: Counter[int] = Counter()
            for i in range(sizes.clips):
                clip = usable[order[i % len(usable)]]
                number = numbers[recording_of(clip)]
                letter = string.ascii_uppercase[taken[number]]
                taken[number] += 1
                row: dict[str, str | int | bool] = {
                    "filename": f"{fold}-{number}-{letter}-{target}.wav",
                    "fold": fold,
                    "target": target,
                    "category": category,
                    "esc10": category in ESC10,
                    "src_file": number,
                    "take": letter,
                }
                takes.append(Take(clip, row, generator(seed, name, i + 1)))
    return sorted(takes, key=lambda take: str(take.row["filename"]))


def _render(take: Take) -> np.ndarray:
    """Repeat the varied recording 2 to 5 times if they fit, amid digital silence."""
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
