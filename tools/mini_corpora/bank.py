"""The bank: real recordings in the repository, of which the mini corpora are made.

``clips.csv`` lists the clips; the OGG files hold several clips each, packed by class
and source, since a Vorbis header (3.8 kB) is often larger than a short clip.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 16000
UNLABELED = "unlabeled"
COLUMNS = "file start end labels split group package original author license".split()

_NOTICE = (
    "keep the copyright notice and the license text, which are in the Debian "
    "package's copyright file and in the README of the bank (tools/bank)"
)
#: What each license in the bank asks of those who pass the recordings on.
OBLIGATIONS = {
    "CC0": "nothing is asked; the authors are named out of courtesy",
    "public-domain": "nothing is asked",
    "CC-BY-3.0": (
        "name the author, link <https://creativecommons.org/licenses/by/3.0/> and say "
        "what was changed (here: cut, mixed to mono, resampled to 16 kHz, recoded)"
    ),
    "MIT": _NOTICE,
    "BSD-2": _NOTICE,
    "BSD-2 (recording PD)": f"{_NOTICE}; the recording itself is in the public domain",
    "BSD-like (2 clauses, no endorsement)": (
        f"{_NOTICE}; do not use the authors' names to endorse a product"
    ),
}


@dataclass(frozen=True, eq=False)
class Clip:
    """One recording of the bank.

    Attributes
    ----------
    audio : np.ndarray
        ``[S]`` float32 samples at 16 kHz.
    label : str
        The class, or ``"unlabeled"``.
    split : str
        ``"train"`` or ``"test"``; no source stands in both.
    group : str
        The source: a sound bank, a drum kit, a voice, an author.
    package, original, author, license : str
        Where the recording comes from.
    """

    audio: np.ndarray
    label: str
    split: str
    group: str
    package: str
    original: str
    author: str
    license: str


class Bank:
    """Clips, to be narrowed down by split, class and source group.

    Parameters
    ----------
    clips : list of Clip
        In a fixed order, since random choices of clips rest on it.
    """

    def __init__(self, clips: list[Clip]) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def select(
        self,
        split: str | None = None,
        labels: tuple[str, ...] | None = None,
        group: str | None = None,
    ) -> Bank:
        """Return the clips of one split, of some classes, of one source group.

        Parameters
        ----------
        split, group : str, optional
            Keep only the clips of this split, of this source group.
        labels : tuple of str, optional
            Keep only the clips of these classes.
        """
        return Bank(
            [
                clip
                for clip in self.clips
                if (split is None or clip.split == split)
                and (labels is None or clip.label in labels)
                and (group is None or clip.group == group)
            ]
        )

    def by_group(self) -> dict[str, list[Clip]]:
        """Return the clips of each source group, groups in alphabetical order."""
        groups = defaultdict(list)
        for clip in self.clips:
            groups[clip.group].append(clip)
        return dict(sorted(groups.items()))


def load_bank(folder: str | Path) -> Bank:
    """Read ``clips.csv`` and the recordings that it lists.

    Parameters
    ----------
    folder : str or Path
        The folder that holds ``clips.csv`` and the OGG files.

    Returns
    -------
    Bank
        All clips, ordered by file and place in the file.

    Raises
    ------
    FileNotFoundError
        If ``clips.csv`` or a file that it names is missing.
    ValueError
        If a column is missing, a file is not mono 16 kHz, or a clip lies beyond the
        end of its file.
    """
    folder = Path(folder)
    clips, files = [], {}
    for row in _read_rows(folder / "clips.csv"):
        path = folder / row["file"]
        if path not in files:
            files[path] = _read_recording(path)
        start, end = int(row["start"]), int(row["end"])
        audio = files[path][start:end]
        if not 0 < end - start == len(audio):
            raise ValueError(
                f"{folder / 'clips.csv'}: samples {start} to {end} do not lie in "
                f"{row['file']} ({len(files[path])} samples): restore the bank's files"
            )
        origin = {name: row[name] for name in COLUMNS[4:]}
        clips.append(Clip(audio=audio, label=row["labels"] or UNLABELED, **origin))
    return Bank(clips)


def _read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of ``clips.csv``, sorted by file and start."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} not found: give the folder of the bank (tools/bank in a checkout)"
        )
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = set(COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path} lacks the columns {sorted(missing)}: restore it")
        return sorted(reader, key=lambda row: (row["file"], int(row["start"])))


def _read_recording(path: Path) -> np.ndarray:
    """Read one OGG file of the bank as ``[S]`` float32 samples."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}, listed in clips.csv, is missing: restore it")
    audio, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE or audio.ndim != 1:
        raise ValueError(f"{path} is not mono at {SAMPLE_RATE} Hz: convert it first")
    return audio


def attribution_table(bank: Bank) -> str:
    """Write the bank's ``ATTRIBUTION.md``: who made what, under which license.

    Parameters
    ----------
    bank : Bank
        All clips.

    Returns
    -------
    str
        Markdown: one row per package, author and license, then the licenses' duties.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    contents = defaultdict(set)
    for clip in bank.clips:
        row = (clip.package, clip.author, clip.license)
        counts[row] += 1
        contents[row].add(clip.label.replace("_", " "))
    lines = ["# Attribution", "", "| package | author | license | clips | what |"]
    lines += ["|---|---|---|---|---|"]
    for row in sorted(counts):
        what = ", ".join(sorted(contents[row], key=str.lower))
        lines.append(f"| {' | '.join(row)} | {counts[row]} | {what} |")
    lines += ["", "## What the licenses ask", "", "| license | duty |", "|---|---|"]
    for license in sorted({row[2] for row in counts}):
        lines.append(f"| {license} | {OBLIGATIONS[license]} |")
    return "\n".join(lines) + "\n"
