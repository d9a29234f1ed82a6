"""Make all mini corpora: small substitutes for AudioSet, ESC-50 and Speech Commands.

Every recipe runs on them unchanged, within minutes on two CPU cores.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from eat.errors import ManifestError
from eat.utils.files import sha256_file, write_text
from mini_corpora import audioset, esc50, speech_commands
from mini_corpora.audioset import AudioSetSizes
from mini_corpora.bank import attribution_table, load_bank
from mini_corpora.esc50 import ESC50Sizes
from mini_corpora.speech_commands import SpeechCommandsSizes

#: Increased whenever the same seed gives different files than before.
VERSION = 1
MARKER = ".mini_corpus.json"
#: Folder name of each corpus -> function that writes it.
WRITERS: dict[str, Callable[..., None]] = {
    audioset.FOLDER: audioset.write_audioset,
    esc50.FOLDER: esc50.write_esc50,
    speech_commands.FOLDER: speech_commands.write_speech_commands,
}
Size = AudioSetSizes | ESC50Sizes | SpeechCommandsSizes
Sizes = tuple[AudioSetSizes, ESC50Sizes, SpeechCommandsSizes]
#: Together about 570 MB.
DEFAULT_SIZES: Sizes = (AudioSetSizes(), ESC50Sizes(), SpeechCommandsSizes())


def make_mini_corpora(
    bank_folder: str | Path,
    out: str | Path,
    seed: int = 0,
    sizes: Sizes = DEFAULT_SIZES,
    workers: int = 2,
) -> None:
    """Make the mini corpora from the recordings in the bank.

    Complete corpora are left as they are, and interrupted ones are made from scratch.
    Folders with other content are refused before anything is written. The same seed
    gives the same bytes, with any number of threads (`workers`).
    """
    each: tuple[Size, ...] = sizes
    wanted = dict(zip(WRITERS, each, strict=True))
    make_corpora(bank_folder, out, wanted, seed, workers)


def make_corpora(
    bank_folder: str | Path,
    out: str | Path,
    sizes: Mapping[str, Size],
    seed: int = 0,
    workers: int = 2,
) -> None:
    """Make some of the mini corpora: `sizes` by folder name, see `WRITERS`."""
    clips = load_bank(bank_folder)
    bank = sha256_file(Path(bank_folder) / "clips.csv")[:16]
    missing = []
    for name, size in sizes.items():
        made_of = {"seed": seed, "bank": bank, "sizes": asdict(size)}
        folder, marker = Path(out) / name, {"version": VERSION, **made_of}
        if _is_missing(folder, marker, type(size)()):
            missing.append((folder, size, marker))
    for folder, size, marker in missing:
        partial = _partial(folder)
        if partial.exists():  # left by an interrupted run
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        write_text(partial / MARKER, json.dumps(marker) + "\n")
        WRITERS[folder.name](clips, partial, seed, size, workers)
        write_text(partial / "ATTRIBUTION.md", attribution_table(clips))
        partial.rename(folder)


def _partial(folder: Path) -> Path:
    """Return the folder in which a corpus is written until it is complete."""
    return folder.with_name(f".{folder.name}.partial")


def _is_missing(folder: Path, marker: dict[str, object], default: Size) -> bool:
    """Check whether a corpus is yet to be made; refuse folders with other content."""
    if (folder / MARKER).is_file():
        found = json.loads((folder / MARKER).read_text())
        # An older marker lacks the sizes that were added since.
        found["sizes"] = asdict(default) | found.get("sizes", {})
        wrong = [key for key in marker if found.get(key) != marker[key]]
        if wrong:
            made, wanted = ({key: m.get(key) for key in wrong} for m in (found, marker))
            raise ManifestError(
                f"{folder}: made with {made}, not {wanted} (remove it or choose "
                "another output folder)"
            )
        return False
    for path in (folder, _partial(folder)):
        in_use = path.is_file() or any(path.glob("*"))
        if in_use and not (path / MARKER).is_file():
            raise ManifestError(
                f"{path}: not made by make_mini_corpora (choose another output folder)"
            )
    return True
