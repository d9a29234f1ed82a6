"""The Arrow file of a manifest: made from the CSV file once, then read by memory map.

The CSV file remains what people read and write. Beside a large one an Arrow IPC file is
made, or in the user's cache if nothing can be written there. All processes map it, so
that opening it takes neither time nor memory of their own. Of a small one the same
content is made in memory at each start.

The last batch has no rows but tells what the file was made from: a CSV file of a
certain size, time of modification, and sample of its bytes. An edit that changes none
of these is not noticed; reading all of a file of 10 GB at each start would take longer.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from eat.data.manifest_batches import (
    REMEDY,
    Texts,
    Unusual,
    manifest_rows,
    plain_batches,
    table_batches,
)
from eat.errors import REMEDIES, ManifestError
from eat.utils.files import atomic_path, remove_temporaries
from eat.utils.lock import wait_for_lock
from eat.utils.text import clean

logger = logging.getLogger(__name__)

FORMAT = 1  # raise it when files made by older versions must not be used
MAPPED_BYTES = 2**24  # a CSV file of this size or larger gets an Arrow file
SCHEMA = pa.schema(
    {"ID": pa.string(), "wav": pa.string(), "labels": pa.list_(pa.int32())}
)
_PIECE, _PIECES = 2**16, 64  # bytes of a file that are compared
_HASHES = 2**16  # to compare at a time
_REPEATED = 10_000  # hashes to look into, see `_require_unique`
_NOT_HERE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG}


def arrow_file(path: Path) -> Path | pa.Buffer:
    """Return the Arrow file of a manifest, or its content if the manifest is small.

    Raises `ManifestError` if the manifest is missing, has no clips, lacks a column, or
    a line is malformed or has the id of another, or if no file can be written.
    """
    if not path.is_file() or path.stat().st_size < MAPPED_BYTES:
        _write(path, content := io.BytesIO(), {}, None)
        return pa.py_buffer(content.getvalue())
    source = _describe(path)
    beside = path.with_name(f"{path.name}.arrow")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "eat"
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    cached = cache / f"{name}.arrow"
    for target in (beside, cached):
        if _is_current(target, source):
            return target
    try:
        return _make(path, beside, source)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise _unwritable(beside, error) from error
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return _make(path, cached, source)
    except OSError as error:
        raise _unwritable(cached, error) from error


def read_description(reader: pa.RecordBatchFileReader) -> dict[str, Any]:
    """Return what the last batch of an Arrow file tells.

    ``clips``, the label ids by number, and the SHA-256 of the texts of each column.
    """
    last = reader.num_record_batches - 1
    return json.loads(reader.get_batch_with_custom_metadata(last)[1][b"eat"])


def text_digest(digest: Any, texts: pa.Array) -> None:
    """Add texts, none of which contains zero bytes, to a SHA-256."""
    ends = pa.array([0, len(texts)], pa.int32())
    separator = pa.scalar(b"\0", texts.type)
    joined = pc.binary_join(pa.ListArray.from_arrays(ends, texts), separator)
    digest.update(joined[0].as_buffer())
    digest.update(b"\0")


def _make(path: Path, target: Path, source: dict[str, Any]) -> Path:
    """Write the Arrow file, unless another process has done so meanwhile."""
    with wait_for_lock(target.with_name(f".{target.name}.lock")):
        if _is_current(target, source):
            return target
        remove_temporaries(target.parent)
        with atomic_path(target, sync=True) as temporary:
            with open(temporary, "w+b") as file:
                _write(path, file, source, target.parent)
        logger.info("%s: made from %s, for later starts", target, path.name)
    return target


def _is_current(target: Path, source: dict[str, Any]) -> bool:
    """Return whether an Arrow file is undamaged and made from this CSV file."""
    try:
        with pa.memory_map(str(target)) as mapped, open(target, "rb") as file:
            made = read_description(pa.ipc.open_file(mapped))
            return (
                made["format"] == FORMAT
                and made["source"] == source
                and made["sample"] == _sample(file, made["bytes"])
            )
    except (OSError, ValueError, KeyError, TypeError):  # Arrow's errors are such
        return False


def _describe(path: Path) -> dict[str, Any]:
    """Return by what a CSV file is recognized."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            size, sample = status.st_size, _sample(file, status.st_size)
    except OSError as error:
        raise ManifestError(
            f"{path}: cannot be read: {error.strerror} (check the path and permissions)"
        ) from None
    return {"bytes": size, "mtime_ns": status.st_mtime_ns, "sample": sample}


def _sample(file: BinaryIO, size: int) -> str:
    """Return the SHA-256 of pieces of the first `size` bytes of a file."""
    digest = hashlib.sha256()
    for start in np.linspace(0, max(size - _PIECE, 0), _PIECES).astype(int).tolist():
        file.seek(start)
        digest.update(file.read(min(_PIECE, size - start)))
    return digest.hexdigest()


def _unwritable(target: Path, error: OSError) -> ManifestError:
    remedy = REMEDIES.get(error.errno or 0, "check its folder")
    return ManifestError(f"{target}: cannot be written: {error.strerror} ({remedy})")


def _write(
    path: Path, file: BinaryIO, source: dict[str, Any], folder: Path | None
) -> None:
    """Write the content of a CSV file as an Arrow file.

    The hashes of the ids, 8 bytes each, are in a temporary file in the folder.
    """
    try:
        _write_batches(path, plain_batches(path), file, source, folder)
    except (pa.ArrowInvalid, Unusual):
        file.seek(0)
        file.truncate()
        _write_batches(path, table_batches(path), file, source, folder)


def _write_batches(
    path: Path,
    batches: Iterator[Texts],
    file: BinaryIO,
    source: dict[str, Any],
    folder: Path | None,
) -> None:
    """Write the texts of clips, and what the last batch tells."""
    codes: dict[str, int] = {}  # of the label ids
    digests = {name: hashlib.sha256() for name in SCHEMA.names}
    with (
        tempfile.TemporaryFile(dir=folder) as hashes,
        pa.ipc.new_file(pa.PythonFile(file, "w"), SCHEMA) as writer,
        tqdm(**_progress(path)) as bar,
    ):
        for texts in batches:
            for name, column in zip(SCHEMA.names, texts, strict=True):
                text_digest(digests[name], column)
            ids, wavs, labels = texts
            encoded = _encode_labels(labels, codes)
            writer.write_batch(pa.record_batch([ids, wavs, encoded], schema=SCHEMA))
            found = map(hash, ids.to_pylist())
            hashes.write(np.fromiter(found, np.int64, len(ids)).tobytes())
            bar.update(len(ids))
        _require_unique(path, hashes)
        size = file.tell()
        made = {"format": FORMAT, "source": source, "bytes": size}
        made |= {"sample": _sample(file, size), "labels": [*codes]}
        made["SHA-256"] = {name: item.hexdigest() for name, item in digests.items()}
        file.seek(size)
        end = pa.record_batch([[], [], []], schema=SCHEMA)
        writer.write_batch(end, {"eat": json.dumps(made)})


def _encode_labels(joined: pa.StringArray, codes: dict[str, int]) -> pa.ListArray:
    """Return the numbers of labels joined by ``;``; new label ids get the next ones."""
    split = pc.split_pattern(joined, ";")
    distinct = split.flatten().dictionary_encode()
    labels = map(clean, distinct.dictionary.to_pylist())
    numbers = [codes.setdefault(x, len(codes)) if x else -1 for x in labels]
    values = np.array(numbers, np.int32)[distinct.indices]
    ends = np.concatenate([[0], np.cumsum(values >= 0)])[split.offsets]
    return pa.ListArray.from_arrays(ends.astype(np.int32), values[values >= 0])


def _progress(path: Path) -> dict[str, Any]:
    """Return the options of a progress bar, which takes the number of lines for equal
    to that in as many bytes at the beginning.
    """
    options = {"desc": path.name, "unit": "clip", "unit_scale": True, "delay": 3}
    if path.is_file():
        with open(path, "rb") as file:
            start = file.read(2**20)
        lines = start.count(b"\n") * path.stat().st_size
        options["total"] = lines // max(len(start), 1) or None
    return {**options, "disable": None}


def _require_unique(path: Path, file: BinaryIO) -> None:
    """Raise if there are no clips, or two have the same id.

    The file has the hash of each id. Sorted, equal ones are neighbors; only clips with
    such a hash are looked at.
    """
    if not file.tell():
        raise ManifestError(f"{path}: no clips in it ({REMEDY})")
    hashes = np.memmap(file, np.int64, "r+")
    hashes.sort()
    repeated: set[int] = set()
    for start in range(0, len(hashes) - 1, _HASHES):
        part = hashes[start : start + _HASHES + 1]
        repeated.update(part[1:][part[1:] == part[:-1]].tolist())
        if len(repeated) > _REPEATED:  # at least one is no coincidence
            break
    seen: set[str] = set()
    for clip, *_ in manifest_rows(path) if repeated else ():
        if clip in seen:
            raise ManifestError(f"{path}: clip '{clip}' occurs twice ({REMEDY})")
        if hash(clip) in repeated:
            seen.add(clip)
