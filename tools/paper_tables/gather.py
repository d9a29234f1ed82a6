"""From finished runs to one committed file of numbers, without machine paths."""

from __future__ import annotations

import json
import os
from pathlib import Path

from paper_tables.jobs import DONE
from paper_tables.scale import CORPORA

NEEDED = ("seed", "steps", "clips_seen", "last", "cost", "data", "versions")
KEPT = (*NEEDED, "skipped_batches", "best", "test")
# How commands name folders, here and on every other machine.
RUNS = "$OUT"
CORPUS_FOLDERS = {
    "AudioSet": "$AUDIOSET",
    "ESC50": "$ESC50",
    "SpeechCommands": "$SPEECH_COMMANDS",
}


class GatherError(ValueError):
    """A file of results that cannot be read."""


def gather(runs: Path) -> dict[str, dict]:
    """Read the finished runs of a folder.

    Parameters
    ----------
    runs
        Holds a folder for each run.

    Returns
    -------
    dict
        From a run's name to its record: what `KEPT` names of ``results.json``, and of
        ``job.json`` (absent where train.py was called by hand) ``seconds``,
        ``peak_mb`` and ``command`` with `RUNS` and `CORPUS_FOLDERS` for folders.

    Raises
    ------
    GatherError
        If a file is damaged, or not that of a training.
    """
    return {
        path.parent.name: _record(path.parent)
        for path in sorted(runs.glob("*/results.json"))
    }


def _record(folder: Path) -> dict:
    results = _read(folder / "results.json")
    if missing := [key for key in NEEDED if key not in results]:
        raise GatherError(
            f"{folder / 'results.json'}: no '{missing[0]}', so not of a training by "
            "this version (run it again, or move the folder away)"
        )
    record = {key: results[key] for key in KEPT if key in results}
    if (folder / DONE).exists():
        record |= _read(folder / DONE)
        record["command"] = _portable(record["command"], folder.name)
    return record


def _portable(command: list[str], name: str) -> list[str]:
    """Put names in place of the folders of this machine."""
    recipe = next(
        (CORPORA[task] for task in CORPORA if name.startswith(f"{task}-")), "AudioSet"
    )
    runs = os.path.dirname(command[command.index("--output_folder") + 1])
    data = command[command.index("--data_folder") + 1]
    folders = {data: CORPUS_FOLDERS[recipe], runs: RUNS}
    words = []
    for word in command:
        for folder, shown in folders.items():
            if word == folder or word.startswith(f"{folder}/"):
                word = shown + word.removeprefix(folder)
        words.append(os.path.basename(word) if os.path.isabs(word) else word)
    return words


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise GatherError(f"{path}: {error} (run it again)") from None


def read_published(path: Path) -> dict[str, dict]:
    """Read the committed records; none if there is no file.

    Raises
    ------
    GatherError
        If the file is damaged.
    """
    return _read(path) if path.exists() else {}


def write_published(path: Path, records: dict[str, dict]) -> None:
    """Write records, one a line and in order of names, so that changes stay small."""
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(records.items())]
    partial = path.with_suffix(".partial")
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    os.replace(partial, path)
