"""Mini corpora of real recordings, in the layouts of the true corpora.

They stand in for AudioSet, ESC-50 and Speech Commands where those cannot be had: every
recipe runs on them unchanged, within minutes on two cores.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mini_corpora import audioset, esc50, speech_commands
from mini_corpora.audioset import AudioSetSizes, write_audioset
from mini_corpora.bank import attribution_table, load_bank
from mini_corpora.esc50 import ESC50Sizes, write_esc50
from mini_corpora.speech_commands import SpeechCommandsSizes, write_speech_commands

#: Raised whenever the same seed makes other files than before.
VERSION = 1
MARKER = ".mini_corpus.json"


@dataclass(frozen=True)
class MiniSizes:
    """Sizes of the mini corpora; together some 570 MB on disk by default."""

    audioset: AudioSetSizes = field(default_factory=AudioSetSizes)
    esc50: ESC50Sizes = field(default_factory=ESC50Sizes)
    speech_commands: SpeechCommandsSizes = field(default_factory=SpeechCommandsSizes)


def make_mini_corpora(
    bank_folder: str | Path,
    out: str | Path,
    seed: int = 0,
    sizes: MiniSizes | None = None,
    workers: int = 2,
) -> None:
    """Make the mini corpora of the bank's recordings.

    What is complete stays as it is, what was interrupted is made anew, and nothing
    else is touched. The same seed makes the same bytes.

    Parameters
    ----------
    bank_folder : str or Path
        The folder with ``clips.csv``.
    out : str or Path
        Gets the folders ``AudioSet``, ``ESC-50-master`` and ``speech_commands_v0.02``.
    seed : int
        Of every random choice.
    sizes : MiniSizes, optional
        How much to make.
    workers : int
        Threads at a time; does not change the result.

    Raises
    ------
    FileExistsError
        If one of the folders exists and was not made by this function with the same
        bank, seed and sizes.
    FileNotFoundError
        If the bank is incomplete.
    """
    sizes = sizes or MiniSizes()
    bank, digest = load_bank(bank_folder), _digest(Path(bank_folder) / "clips.csv")
    corpora = (
        (audioset.FOLDER, write_audioset, sizes.audioset),
        (esc50.FOLDER, write_esc50, sizes.esc50),
        (speech_commands.FOLDER, write_speech_commands, sizes.speech_commands),
    )
    missing = []
    for name, write, size in corpora:
        folder = Path(out) / name
        marker = {
            "version": VERSION,
            "seed": seed,
            "bank": digest,
            "sizes": asdict(size),
        }
        if _is_missing(folder, marker):
            missing.append((folder, write, size, marker))
    # Only now, when nothing is refused, is anything written.
    for folder, write, size, marker in missing:
        with _built_aside(folder, marker) as aside:
            write(bank, aside, seed, size, workers)
            (aside / "ATTRIBUTION.md").write_text(
                attribution_table(bank), encoding="utf-8"
            )


def _digest(path: Path) -> str:
    """Return a short fingerprint of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _aside(folder: Path) -> Path:
    """Return where a corpus is written until it is complete."""
    return folder.with_name(f".{folder.name}.partial")


def _is_missing(folder: Path, marker: dict[str, Any]) -> bool:
    """Tell whether a corpus is yet to be made, and refuse what is not ours."""
    if not folder.exists():
        aside = _aside(folder)
        if aside.exists() and any(aside.iterdir()) and not (aside / MARKER).is_file():
            raise FileExistsError(
                f"{aside} was not made by make_mini_corpora: remove it"
            )
        return True
    path = folder / MARKER
    found = json.loads(path.read_text()) if path.is_file() else None
    if found == marker:
        return False
    if found is None:
        what = "was not made by make_mini_corpora"
    else:
        different = [key for key in marker if found.get(key) != marker[key]]
        have, want = ({key: m.get(key) for key in different} for m in (found, marker))
        what = f"was made with {have}, not {want}"
    raise FileExistsError(f"{folder} {what}: choose another folder or remove it")


@contextmanager
def _built_aside(folder: Path, marker: dict[str, Any]) -> Iterator[Path]:
    """Give a folder to write a corpus in, renamed into place when it is complete."""
    aside = _aside(folder)
    if aside.exists():  # What an interrupted run has left.
        shutil.rmtree(aside)
    aside.mkdir(parents=True)
    (aside / MARKER).write_text(json.dumps(marker) + "\n")
    yield aside
    aside.rename(folder)
