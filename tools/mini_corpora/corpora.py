"""Make all mini corpora: small substitutes for AudioSet, ESC-50 and Speech Commands.

Every recipe runs on them unchanged, within minutes on two CPU cores.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from eat.errors import ManifestError
from eat.utils.files import sha256_file, write_text
from mini_corpora import audioset, esc50, speech_commands
from mini_corpora.bank import attribution_table, load_bank

#: Increased whenever the same seed gives different files than before.
VERSION = 1
MARKER = ".mini_corpus.json"


@dataclass(frozen=True)
class MiniSizes:
    """Sizes of the mini corpora; the default takes about 570 MB."""

    audioset: audioset.AudioSetSizes = audioset.AudioSetSizes()
    esc50: esc50.ESC50Sizes = esc50.ESC50Sizes()
    speech_commands: speech_commands.SpeechCommandsSizes = (
        speech_commands.SpeechCommandsSizes()
    )


def make_mini_corpora(
    bank_folder: str | Path,
    out: str | Path,
    seed: int = 0,
    sizes: MiniSizes | None = None,
    workers: int = 2,
) -> None:
    """Make the mini corpora from the recordings in the bank.

    Complete corpora are left as they are, interrupted ones are made from scratch, and
    folders made with other settings or by others are refused before anything is
    written. The same seed gives the same bytes.

    Parameters
    ----------
    bank_folder
        Folder with ``clips.csv``.
    out
        Folder for ``AudioSet``, ``ESC-50-master`` and ``speech_commands_v0.02``.
    seed
        Random seed.
    sizes
        Sizes of the corpora, ``MiniSizes()`` by default.
    workers
        Number of threads; does not change the result.
    """
    sizes = sizes or MiniSizes()
    clips = load_bank(bank_folder)
    bank = sha256_file(Path(bank_folder) / "clips.csv")[:16]
    corpora = (
        (audioset.FOLDER, audioset.write_audioset, sizes.audioset),
        (esc50.FOLDER, esc50.write_esc50, sizes.esc50),
        (
            speech_commands.FOLDER,
            speech_commands.write_speech_commands,
            sizes.speech_commands,
        ),
    )
    missing = []
    for name, write, size in corpora:
        settings = {"seed": seed, "bank": bank, "sizes": asdict(size)}
        marker = {"version": VERSION, **settings}
        if _is_missing(Path(out) / name, marker):
            missing.append((Path(out) / name, write, size, marker))
    for folder, write, size, marker in missing:
        partial = _partial(folder)
        if partial.exists():  # left by an interrupted run
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        write_text(partial / MARKER, json.dumps(marker) + "\n")
        write(clips, partial, seed, size, workers)
        write_text(partial / "ATTRIBUTION.md", attribution_table(clips))
        partial.rename(folder)


def _partial(folder: Path) -> Path:
    """Return the folder in which a corpus is written until it is complete."""
    return folder.with_name(f".{folder.name}.partial")


def _is_missing(folder: Path, marker: dict[str, object]) -> bool:
    """Check whether a corpus is yet to be made; refuse folders of other origin."""
    for path in (folder, _partial(folder)):
        if path.exists() and any(path.iterdir()) and not (path / MARKER).is_file():
            raise ManifestError(
                f"{path}: not made by make_mini_corpora (choose another output folder)"
            )
    if not (folder / MARKER).is_file():
        return True
    found = json.loads((folder / MARKER).read_text())
    wrong = [key for key in marker if found.get(key) != marker[key]]
    if wrong:
        made, wanted = ({key: m.get(key) for key in wrong} for m in (found, marker))
        raise ManifestError(
            f"{folder}: was made with {made}, not {wanted} (remove it or choose "
            "another output folder)"
        )
    return False
