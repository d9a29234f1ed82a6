"""What all prepare scripts share: from checked audio to manifests.

A prepare script finds its corpus (`eat.data.corpus_folder`), returns early if nothing
has changed (`up_to_date`), checks every audio file once (`eat.data.audio_check`), or
its part of them (`eat.data.check_parts`), separates usable from unusable clips
(`select_clips`) and writes the results (`write_results`).
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from eat.audio.checks import kind_of
from eat.audio.frontend import SAMPLE_RATE, WINDOW
from eat.audio.io import AudioInfo
from eat.data.audio_check import MISSING, PARTS, Verdict
from eat.data.manifest import (
    LabelSet,
    ManifestRow,
    similar_names,
    write_labels,
    write_manifest,
)
from eat.errors import ManifestError, exit_on_error
from eat.utils.files import atomic_open, write_json, write_text
from eat.utils.parts import add_part_options

logger = logging.getLogger(__name__)


class Clip(NamedTuple):
    """A clip that a corpus lists.

    `file` is relative to the corpus folder or absolute, empty if unknown; `fault` says
    why the clip cannot be used, whatever is in the file.
    """

    id: str
    file: str
    labels: tuple[str, ...] = ()
    fault: str | None = None


class Skipped(NamedTuple):
    """A clip that is in no manifest: a row of ``skipped.csv``."""

    id: str
    file: str
    subset: str
    reason: str


@dataclass(frozen=True)
class Selection:
    """The usable and unusable clips of a subset, and their counts for the summary."""

    rows: list[ManifestRow]
    skipped: list[Skipped]
    counts: dict[str, Any]


def up_to_date(
    save_folder: Path, inputs: Mapping[str, object], outputs: Iterable[str] = ()
) -> bool:
    """Return whether complete results from the same inputs, and `outputs`, exist."""
    try:
        summary = json.loads((save_folder / "summary.json").read_text("utf-8"))
        files = [*summary["files"], *outputs]
        unchanged = summary["inputs"] == json.loads(json.dumps(inputs))
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if unchanged and all((save_folder / name).is_file() for name in files):
        logger.info("%s: the manifests are up to date", save_folder)
        return True
    return False


def make_save_folder(folder: Path) -> None:
    """Create the folder for the results, which must be writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ManifestError(
            f"{folder}: cannot be written, {error.strerror} (choose another folder)"
        ) from None


def select_clips(
    subset: str,
    clips: Iterable[Clip],
    verdicts: Mapping[str, Verdict],
    in_paper: int | None = None,
    min_samples: int | None = None,
) -> Selection:
    """Separate the usable clips of a subset from those to skip, and log the counts.

    A file without a verdict is missing; `in_paper` is how many clips the paper used.
    """
    rows, skipped = [], []
    headers: list[AudioInfo] = []
    examples: dict[str, list[str]] = {}  # for each kind of warning
    for clip in clips:
        verdict = verdicts.get(clip.file, MISSING)
        reason = clip.fault if clip.file else MISSING
        reason = reason or unusable(verdict, min_samples)
        if reason or isinstance(verdict, str):
            skipped.append(Skipped(clip.id, clip.file, subset, reason or str(verdict)))
        else:
            rows.append(ManifestRow(clip.id, verdict.seconds, clip.file, clip.labels))
            headers.append(verdict)
            for warning in verdict.warnings:
                line = f"{clip.file or clip.id}: {warning}"
                examples.setdefault(kind_of(warning), []).append(line)
    missing = sum(clip.reason == MISSING for clip in skipped)
    counts: dict[str, Any] = {
        "listed": len(rows) + len(skipped),
        "found": len(rows) + len(skipped) - missing,
        "missing": missing,
        "skipped": len(skipped) - missing,
        "used": len(rows),
        "used_in_paper": in_paper,
        "hours": round(sum(header.seconds for header in headers) / 3600, 3),
        "sample_rates": Counter(header.sample_rate for header in headers),
        "channels": Counter(header.channels for header in headers),
    }
    line = "{listed} clips listed, {missing} missing, {skipped} skipped, {used} used"
    logger.info("%s: %s (%s h)", subset, line.format(**counts), counts["hours"])
    for kind, found in examples.items():
        text = abbreviate(found, shown=1)
        logger.warning("%s: %d clips used, %s: %s", subset, len(found), kind, text)
    if examples:
        counts["warnings"] = {kind: len(found) for kind, found in examples.items()}
    return Selection(rows, skipped, counts)


def unusable(verdict: Verdict, min_samples: int | None = None) -> str | None:
    """Return why a file cannot be used, or None.

    The minimum length is in samples at the file's own rate, by default one window of
    the front end.
    """
    if isinstance(verdict, str):
        return verdict
    if min_samples is None:
        min_samples = math.ceil(WINDOW * verdict.sample_rate / SAMPLE_RATE)
    if verdict.num_frames < min_samples:
        return f"too short: {verdict.num_frames} samples, {min_samples} needed"
    return None


def require_usable(subsets: Mapping[str, Selection], source: Path, remedy: str) -> None:
    """Raise `ManifestError` if no clip at all can be used."""
    if any(selection.rows for selection in subsets.values()):
        return
    skipped = _all_skipped(subsets)
    reasons = (f"{clip.file or clip.id}: {clip.reason}" for clip in skipped)
    raise ManifestError(
        f"{source}: none of the {len(skipped)} listed clips can be used "
        f"({remedy}; {abbreviate(reasons, shown=1) or 'no clips found'})"
    )


def _all_skipped(subsets: Mapping[str, Selection]) -> list[Skipped]:
    """Return the skipped clips of all subsets, each once."""
    by_id: dict[str, Skipped] = {}
    for selection in subsets.values():
        for clip in selection.skipped:
            by_id.setdefault(clip.id, clip)
    return list(by_id.values())


def write_results(
    save_folder: Path,
    inputs: Mapping[str, object],
    subsets: Mapping[str, Selection],
    labels: LabelSet | None,
    *,
    manifests: Mapping[str, Sequence[ManifestRow]] | None = None,
    unlisted: Iterable[Skipped] = (),
    counts: Mapping[str, object] | None = None,
    texts: Mapping[str, str] | None = None,
    stale: Iterable[str] = (),
) -> None:
    """Write all results, each file atomically, and warn about skipped clips.

    Parameters
    ----------
    inputs
        As given to `up_to_date`.
    manifests
        Rows by the name of the manifest; by default one manifest per subset.
    unlisted
        Skipped files that the corpus does not list.
    counts, texts
        Further counts for ``summary.json``; content of further files by name.
    stale
        Files to remove: an earlier run may have written them, this one may not.
    """
    if manifests is None:
        manifests = {name: selection.rows for name, selection in subsets.items()}
    skipped = [*_all_skipped(subsets), *unlisted]
    # The summary is written last, so that its presence means complete results. What is
    # written again is only replaced: another run may have begun to read it.
    rewritten = {f"{name}.csv" for name in manifests}
    for name in {"summary.json", *stale} - rewritten:
        (save_folder / name).unlink(missing_ok=True)
    for name, rows in manifests.items():
        write_manifest(save_folder / f"{name}.csv", rows)
    write_skipped(save_folder / "skipped.csv", skipped)
    files = [f"{name}.csv" for name in (*manifests, "skipped")]
    if labels:
        if similar := similar_names(labels.names):
            line = "%d class names are equal but for case or spaces: %s"
            shown = abbreviate(f"'{name}'" for name in similar)
            logger.warning(line, len(similar), shown)
        write_labels(save_folder / "labels.csv", labels)
        files.append("labels.csv")
    for name, text in (texts or {}).items():
        write_text(save_folder / name, text)
        files.append(name)
    _warn_about_skipped(skipped, save_folder / "skipped.csv")
    summary = {
        "subsets": {name: selection.counts for name, selection in subsets.items()},
        **(counts or {}),
        "inputs": inputs,
        "files": files,
    }
    write_json(save_folder / "summary.json", summary)
    shutil.rmtree(save_folder / PARTS, ignore_errors=True)


def write_skipped(path: str | os.PathLike[str], skipped: Iterable[Skipped]) -> None:
    """Write the skipped clips with their reasons as CSV, atomically."""
    with atomic_open(path) as file:
        csv.writer(file).writerows([Skipped._fields, *skipped])


def abbreviate(names: Iterable[object], shown: int = 5) -> str:
    """Join the first names and count the rest: ``a, b and 7 more``."""
    names = list(names)
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    text = ", ".join(map(str, names[:shown])) + rest
    return text.encode(errors="backslashreplace").decode()  # names may be any bytes


def _warn_about_skipped(skipped: Sequence[Skipped], path: Path) -> None:
    """Log one line per kind of reason, with the first clips."""
    kinds: dict[str, list[str]] = {}
    for clip in skipped:
        kinds.setdefault(clip.reason.partition(":")[0], []).append(clip.file or clip.id)
    for kind, names in kinds.items():
        line = "%d clips skipped, %s: %s (see %s)"
        logger.warning(line, len(names), kind, abbreviate(names), path)


@exit_on_error()
def run_command_line(
    prepare: Callable[..., None], description: str, data_help: str
) -> None:
    """Call a prepare function with the folders and the part on the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_folder", help=data_help)
    parser.add_argument("save_folder", help="output folder for the manifests")
    add_part_options(parser)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare(**vars(options))
