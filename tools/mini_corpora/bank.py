"""The bank: the recordings in ``tools/bank`` that the mini corpora are made from.

``clips.csv`` lists the clips. Each OGG file holds all clips of one class and source,
since a Vorbis header (3.8 kB) is often larger than a short clip.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from eat.errors import AudioError, AudioNotFoundError, ManifestError

SAMPLE_RATE = 16000
UNLABELED = "unlabeled"
COLUMNS = (
    "file start end labels split group fold package original author license".split()
)

_NOTICE = (
    "keep the copyright notice and the license text, which are in the Debian "
    "package's copyright file and in the README of the bank (tools/bank)"
)
#: License -> what it requires of those who redistribute the recordings.
OBLIGATIONS = {
    "CC0": "nothing; the authors are credited out of courtesy",
    "public-domain": "nothing",
    "CC-BY-3.0": (
        "credit the author, link to <https://creativecommons.org/licenses/by/3.0/> and "
        "state the changes (here: cut, mixed to mono, resampled to 16 kHz, re-encoded)"
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

    ``audio`` holds float32 samples `[S]` at 16 kHz, ``label`` the class or
    ``"unlabeled"``; the other attributes are columns of ``clips.csv``, which
    ``tools/bank/README.md`` explains.
    """

    audio: np.ndarray
    label: str
    split: str
    group: str
    fold: str
    package: str
    original: str
    author: str
    license: str


def load_bank(folder: str | Path) -> list[Clip]:
    """Read all clips of the bank, ordered by file and position in the file."""
    folder = Path(folder)
    clips, files = [], {}
    for row in _read_rows(folder / "clips.csv"):
        path = folder / row["file"]
        if path not in files:
            files[path] = _read_recording(path)
        start, end = int(row["start"]), int(row["end"])
        audio = files[path][start:end]
        if not 0 < end - start == len(audio):
            raise ManifestError(
                f"{folder / 'clips.csv'}: {row['file']} has {len(files[path])} "
                f"samples, not {start} to {end} (restore the bank from git)"
            )
        origin = {name: row[name] for name in COLUMNS[4:]}
        clips.append(Clip(audio=audio, label=row["labels"] or UNLABELED, **origin))
    return clips


def _read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of ``clips.csv``, sorted by file and start."""
    if not path.is_file():
        raise ManifestError(f"{path}: not found (pass the path of tools/bank)")
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = sorted(set(COLUMNS) - set(reader.fieldnames or ()))
        if missing:
            raise ManifestError(f"{path}: missing columns {missing} (restore the file)")
        return sorted(reader, key=lambda row: (row["file"], int(row["start"])))


def _read_recording(path: Path) -> np.ndarray:
    """Read one OGG file of the bank as float32 samples `[S]`."""
    if not path.is_file():
        raise AudioNotFoundError(f"{path}: not found (restore the bank from git)")
    audio, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE or audio.ndim != 1:
        raise AudioError(f"{path}: not mono at {SAMPLE_RATE} Hz (convert the file)")
    return audio


def attribution_table(clips: Sequence[Clip]) -> str:
    """Return the bank's ``ATTRIBUTION.md``: authors and licenses of all recordings."""
    counts: Counter[tuple[str, str, str]] = Counter()
    classes = defaultdict(set)
    for clip in clips:
        row = (clip.package, clip.author, clip.license)
        counts[row] += 1
        classes[row].add(clip.label.replace("_", " "))
    lines = ["# Attribution", "", "| package | author | license | clips | classes |"]
    lines += ["|---|---|---|---|---|"]
    for row in sorted(counts):
        found = ", ".join(sorted(classes[row], key=str.lower))
        lines.append(f"| {' | '.join(row)} | {counts[row]} | {found} |")
    lines += ["", "## License obligations", ""]
    lines += ["| license | what it requires |", "|---|---|"]
    for license in sorted({row[2] for row in counts}):
        lines.append(f"| {license} | {OBLIGATIONS[license]} |")
    return "\n".join(lines) + "\n"
