"""What all prepare scripts share: from a corpus on disk to checked manifests.

A prepare script finds its corpus (`find_corpus`), returns early if nothing has changed
(`up_to_date`), checks every audio file once (`check_audio`), separates usable from
unusable clips (`select_clips`) and writes the results (`write_results`).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import logging
import math
import os
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TextIO

from tqdm import tqdm

from eat.audio.checks import kind_of
from eat.audio.frontend import SAMPLE_RATE, WINDOW
from eat.audio.io import AudioInfo, inspect_many
from eat.data.manifest import (
    LabelSet,
    ManifestRow,
    similar_names,
    write_labels,
    write_manifest,
)
from eat.errors import AudioError, AudioNotFoundError, ManifestError, exit_on_error
from eat.utils.files import atomic_open, write_json, write_text

logger = logging.getLogger(__name__)

MISSING = "missing"
CACHE_COLUMNS = "file size mtime sample_rate frames channels warnings error".split()
_ARCHIVE = re.compile(r".*\.(zip|tgz|tar(\.\w+)?)", re.IGNORECASE)
_INCOMPLETE = (".part", ".crdownload", ".download", ".incomplete", ".aria2")
_BATCH = 8192  # files
_FILES_PER_TASK = 64
_THREADS = 32  # more than cores: they mostly wait for the disk

Stamp = tuple[int, int]  # size in bytes, modification time in ns
Known = tuple[Stamp, AudioInfo]
Verdict = AudioInfo | str  # what is in a file, or why it cannot be used

# Millions of clips have few distinct lengths, so that equal records share memory.
_shared_info = lru_cache(maxsize=65536)(AudioInfo)


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


def find_corpus(data_folder: Path, name: str, landmark: str) -> str:
    """Return the prefix of a corpus in a folder, ``""`` or ``"<name>/"``.

    The corpus is recognized by the file `landmark` in it.
    """
    require_folder(data_folder)
    for prefix in ("", f"{name}/"):
        if (data_folder / prefix / landmark).is_file():
            return prefix
    refuse_archives(data_folder.glob("*"))
    raise ManifestError(
        f"{data_folder}: no {landmark} in it or in {name}/ "
        f"(data_folder must be the unpacked {name})"
    )


def require_folder(data_folder: Path) -> None:
    """Raise `ManifestError` if there is no such folder."""
    if data_folder.is_file():
        refuse_archives([data_folder])
        raise ManifestError(f"{data_folder}: a file, not a folder (check data_folder)")
    if not data_folder.is_dir():
        raise ManifestError(f"{data_folder}: no such folder (check data_folder)")


def refuse_archives(paths: Iterable[Path]) -> None:
    """Raise `ManifestError` if one is an archive, or an incomplete download."""
    paths = sorted(paths)
    if part := next((p for p in paths if p.suffix in _INCOMPLETE), None):
        raise ManifestError(f"{part}: an incomplete download (finish or remove it)")
    if path := next((p for p in paths if _ARCHIVE.fullmatch(p.name)), None):
        unzip = "unzip -q {} -d {}"
        command = unzip if path.suffix.lower() == ".zip" else "tar -xf {} -C {}"
        files = (shlex.quote(str(p)) for p in (path, path.parent))
        raise ManifestError(f"{path}: not unpacked ({command.format(*files)})")


def refuse_unreadable(error: OSError) -> NoReturn:
    """Raise `ManifestError` for a folder that cannot be listed."""
    raise ManifestError(
        f"{error.filename}: cannot be read: {error.strerror} (check its permissions)"
    ) from None


def list_files(root: Path, folders: Iterable[str]) -> list[str]:
    """Return the files directly in some subfolders of `root`, sorted.

    Hidden files are skipped; a subfolder that does not exist has no files.
    """
    files = []
    for folder in folders:
        if (root / folder).is_dir():
            try:
                with os.scandir(root / folder) as entries:
                    files_only = [e.name for e in entries if e.is_file()]
            except OSError as error:
                refuse_unreadable(error)
            names = [name for name in files_only if name[0] != "."]
            files += [f"{folder}/{name}" for name in names]
    return sorted(files)


def fingerprint(root: Path, files: Sequence[str]) -> str:
    """Return a checksum that changes when a file is added, removed or replaced."""
    digest = hashlib.sha256()
    paths = [os.path.join(root, file) for file in files]
    for file, stamp in zip(files, _stamps(paths), strict=True):
        digest.update(os.fsencode(file) + b"/%d/%d/" % stamp)
    return digest.hexdigest()


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


def check_audio(
    root: Path, files: Iterable[str], save_folder: Path
) -> dict[str, Verdict]:
    """Check many files in parallel, see `inspect_audio`, with a progress bar.

    The results are appended to ``checked.csv`` in the save folder: an interrupted check
    resumes, and a good file is not opened again unless its size or modification time
    changes. The files are relative to `root` or absolute. For each, returns what is in
    it, or the reason to skip it: ``missing`` or ``unreadable: ...``.
    """
    verdicts: dict[str, Verdict] = dict.fromkeys(files, "")
    cache = save_folder / "checked.csv"
    known = _read_cache(cache, verdicts)
    with (
        _open_cache(cache, "a") as log,
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=len(verdicts), unit="file", desc="checking", disable=None) as bar,
    ):
        writer = csv.writer(log, lineterminator="\n")
        if log.tell() == 0:
            writer.writerow(CACHE_COLUMNS)
        for batch in _slices(list(verdicts), _BATCH):
            paths = {file: os.path.join(root, file) for file in batch}
            for file, verdict in _check_batch(paths, known, pool, writer):
                verdicts[file] = verdict
                bar.update()
    return verdicts


def _check_batch(
    paths: dict[str, str], known: dict[str, Known], pool: ThreadPoolExecutor, log: Any
) -> Iterator[tuple[str, Verdict]]:
    """Yield files and their verdicts; log those that are new."""
    tasks = _slices(list(paths.values()), _FILES_PER_TASK)
    stamps = chain.from_iterable(pool.map(_stamps, tasks))
    changed = {}
    for file, stamp in zip(paths, stamps, strict=True):
        earlier = known.pop(file, None)
        if earlier and earlier[0] == stamp:
            yield file, earlier[1]
        else:
            changed[file] = stamp
    results = inspect_many([paths[file] for file in changed])
    for (file, stamp), result in zip(changed.items(), results, strict=True):
        if isinstance(result, AudioError):
            reason = skip_reason(result, paths[file])
            log.writerow((file, *stamp, "", "", "", "", reason))
            yield file, reason
        else:
            header = result.sample_rate, result.num_frames, result.channels
            log.writerow((file, *stamp, *header, "; ".join(result.warnings), ""))
            yield file, result


def skip_reason(error: AudioError, path: str) -> str:
    """Return the reason to skip a clip from the error that reading its file raised."""
    if isinstance(error, AudioNotFoundError):
        return MISSING
    return f"unreadable: {str(error).removeprefix(f'{Path(path)}: ')}"


def _open_cache(cache: Path, mode: Literal["r", "a"]) -> TextIO:
    return open(cache, mode, encoding="utf-8", errors="surrogateescape", newline="")


def _read_cache(cache: Path, files: Container[str]) -> dict[str, Known]:
    """Return the stamp and header of the files whose last check succeeded."""
    known: dict[str, Known] = {}
    if not cache.exists():
        return known
    _drop_partial_line(cache)
    try:
        with _open_cache(cache, "r") as lines:
            reader = csv.reader(lines)
            if next(reader, CACHE_COLUMNS) != CACHE_COLUMNS:  # of an earlier version
                cache.unlink()
                return known
            for file, size, mtime, *header, warnings, error in reader:
                if file not in files:
                    continue
                stamp = int(size), int(mtime)
                if error:
                    known.pop(file, None)
                else:
                    found = tuple(filter(None, warnings.split("; ")))
                    known[file] = stamp, _shared_info(*map(int, header), found)
    except (ValueError, csv.Error):
        raise ManifestError(
            f"{cache}: corrupt (delete it to check all audio again)"
        ) from None
    return known


def _drop_partial_line(cache: Path) -> None:
    """Remove the last line of a cache if a killed process wrote only part of it."""
    with open(cache, "rb+") as file:
        start = max(0, file.seek(0, os.SEEK_END) - 65536)
        file.seek(start)
        file.truncate(start + file.read().rfind(b"\n") + 1)


def _stamps(paths: Sequence[str]) -> list[Stamp]:
    """Return the stamp of each file, zeros if it does not exist."""
    stamps = []
    for path in paths:
        try:
            status = os.stat(path)
            stamps.append((status.st_size, status.st_mtime_ns))
        except OSError:
            stamps.append((0, 0))
    return stamps


def _slices(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


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
    prepare: Callable[[str, str], None], description: str, data_help: str
) -> None:
    """Call a prepare function with the two folders given on the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_folder", help=data_help)
    parser.add_argument("save_folder", help="output folder for the manifests")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare(arguments.data_folder, arguments.save_folder)
