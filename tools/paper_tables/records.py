"""Records of finished runs: gathered into one committed file, free of machine paths."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eat.errors import EATError
from eat.utils.files import write_text
from paper_tables.experiments import RECIPES, Cell
from paper_tables.jobs import JOB_FILE

NEEDED = ("seed", "steps", "clips_seen", "last", "cost", "data", "versions")
KEPT = (*NEEDED, "skipped_batches", "best", "test")
# Folders in the commands of records, the same for every machine; of corpora by recipe.
OUTPUT, SPEECH = "$OUT", "$SPEECH_COMMANDS"
CORPUS_FOLDERS = {"AudioSet": "$AUDIOSET", "ESC50": "$ESC50", "SpeechCommands": SPEECH}


class RecordError(EATError, ValueError):
    """A file of results is corrupt, or not that of a training run."""


def gather(runs: Path) -> dict[str, dict]:
    """Read the finished runs in a folder: by name, their records.

    A record has the keys in `KEPT` of ``results.json``, and ``seconds``,
    ``cpu_seconds``, ``peak_mb`` and ``command`` of ``job.json``, which is missing if
    train.py was run by hand.
    """
    folders = [path.parent for path in sorted(runs.glob("*/results.json"))]
    return {folder.name: _record(folder) for folder in folders}


def _record(folder: Path) -> dict:
    results = _read(folder / "results.json")
    _require(results, folder / "results.json")
    record = {key: results[key] for key in KEPT if key in results}
    if (folder / JOB_FILE).exists():
        record |= _read(folder / JOB_FILE)
        try:
            record["command"] = _portable(record["command"], folder.name)
        except (LookupError, ValueError, TypeError, AttributeError):
            raise RecordError(
                f"{folder / JOB_FILE}: no command of train.py (remove the file)"
            ) from None
    return record


def _require(record: object, where: object) -> None:
    """Raise `RecordError` unless this is the record of a training run."""
    if not isinstance(record, dict) or not isinstance(record.get("last"), dict):
        missing = "last"
    else:
        missing = next((key for key in NEEDED if key not in record), "")
    if missing:
        raise RecordError(
            f"{where}: '{missing}' is missing, so these are not the results of a "
            "training run (run it again or move the folder)"
        )


def _portable(command: list[str], name: str) -> list[str]:
    """Replace this machine's folders by names."""
    tasks = [task for task in RECIPES if name.startswith(f"{task}-")]
    recipe = RECIPES[tasks[0]] if tasks else "AudioSet"
    runs = os.path.dirname(command[command.index("--output_folder") + 1])
    data = command[command.index("--data_folder") + 1]
    words = []
    for word in command:
        for folder, shown in ((data, CORPUS_FOLDERS[recipe]), (runs, OUTPUT)):
            if word == folder or word.startswith(f"{folder}/"):
                word = shown + word.removeprefix(folder)
        words.append(os.path.basename(word) if os.path.isabs(word) else word)
    return words


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also of bytes that are not UTF-8
        raise RecordError(f"{path}: {error} (run it again)") from None
    if not isinstance(content, dict):
        raise RecordError(f"{path}: not a JSON object (run it again)")
    return content


def read_records(path: Path) -> dict[str, dict]:
    """Read the committed records; empty without a file."""
    records = _read(path) if path.exists() else {}
    for name, record in records.items():
        _require(record, f"{path}: {name}")
    return records


def write_records(path: Path, records: dict[str, dict]) -> None:
    """Write records sorted by name, one per line, so that diffs stay small."""
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(records.items())]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


@dataclass(frozen=True)
class CellStatistics:
    """Scores of a cell's finished seeds, in percent; folds are averaged."""

    best: list[float]  # of the best epoch, by seed
    last: list[float]  # of the last epoch

    @classmethod
    def of(cls, cell: Cell, records: Mapping[str, dict]) -> CellStatistics:
        """Collect the seeds whose runs have all finished."""
        best, last = [], []
        for run in cell.runs:
            if all(job.name in records for job in run):
                found = [records[job.name] for job in run]
                try:
                    # With a separate test set, the best epoch is evaluated on it.
                    tested = [record.get("test", record["best"]) for record in found]
                    best.append(100 * statistics.mean(r[cell.metric] for r in tested))
                    final = [record["last"][cell.metric] for record in found]
                    last.append(100 * statistics.mean(final))
                except (KeyError, TypeError):
                    raise RecordError(
                        f"{run[0].name}: a record without {cell.metric} (run it again)"
                    ) from None
        return cls(best, last)

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.best)


def mean_std(scores: Sequence[float]) -> str:
    """Return "mean ± standard deviation", the mean alone for a single score."""
    std = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.2f}{std}"
