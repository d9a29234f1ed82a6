"""The columns of AudioSet's parquet files, in the types that programs store them in.

``datasets``, pandas and others write the same table with label ids or class numbers,
one or several of them, and audio with a path, without one, or as nothing but a path.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from audioset_layouts import split_labels

from eat.data.manifest import LabelSet
from eat.errors import ManifestError

if TYPE_CHECKING:
    from pyarrow import DataType, Schema

REMEDY = "download it from the data set agkphysics/AudioSet"
_CLASS_NUMBERS = ("list<integer>", "integer")
TYPES = {
    "video_id": ("string", "binary"),
    "audio": (
        "struct<bytes: binary, path: string>",
        *("struct<bytes: binary>", "struct<path: string>", "binary", "string"),
    ),
    "labels": ("list<string>", "string"),
}


class Row(NamedTuple):
    """A row of a parquet file.

    `audio` is None if the row has none, `path` is empty if it has none.
    """

    id: str
    audio: bytes | None
    path: str
    labels: tuple[str, ...]  # ids or names of classes


def check_types(schema: Schema, path: Path) -> None:
    """Raise `ManifestError` if a column is missing or of a type that is not read."""
    for column, accepted in TYPES.items():
        if column not in schema.names:
            raise ManifestError(
                f"{path}: no column '{column}', only {', '.join(schema.names)} "
                f"({REMEDY})"
            )
        if schema.names.count(column) > 1:
            raise ManifestError(f"{path}: column '{column}' occurs twice ({REMEDY})")
        kind = _kind(schema.field(column).type)
        if column == "labels" and kind in _CLASS_NUMBERS and class_names(schema):
            continue
        if kind not in accepted:
            also = ""
            if column == "labels":
                also = ", or class numbers with their names in the metadata"
            raise ManifestError(
                f"{path}: column '{column}' is of type {schema.field(column).type}, "
                f"accepted are {', '.join(accepted)}{also} ({REMEDY})"
            )


def _kind(type_: DataType) -> str:
    """Return what a type holds, however it is encoded."""
    from pyarrow import types

    if types.is_dictionary(type_):
        return _kind(type_.value_type)
    if types.is_list(type_) or types.is_large_list(type_):
        return f"list<{_kind(type_.value_type)}>"
    if types.is_fixed_size_list(type_):
        return f"list<{_kind(type_.value_type)}>"
    if types.is_struct(type_):
        fields = {field.name: _kind(field.type) for field in type_}
        there = [n for n in ("bytes", "path") if fields.get(n, "null") != "null"]
        return f"struct<{', '.join(f'{name}: {fields[name]}' for name in there)}>"
    kinds = {
        "string": (types.is_string, types.is_large_string),
        "binary": (types.is_binary, types.is_large_binary),
        "integer": (types.is_integer,),
    }
    found = (kind for kind, tests in kinds.items() if any(is_(type_) for is_ in tests))
    return next(found, str(type_))


def class_names(schema: Schema) -> list[str]:
    """Return the names of the classes that ``datasets`` stores with class numbers."""
    try:
        metadata = json.loads((schema.metadata or {})[b"huggingface"])
        feature = metadata["info"]["features"]["labels"]
    except (KeyError, TypeError, ValueError):
        return []
    while not (isinstance(feature, dict) and "names" in feature):
        if isinstance(feature, list) and feature:
            feature = feature[0]
        elif isinstance(feature, dict) and "feature" in feature:
            feature = feature["feature"]
        else:
            return []
    names = feature["names"]
    return [str(name) for name in names] if isinstance(names, list) else []


def parse_row(row: Mapping[str, Any], names: list[str], path: Path) -> Row:
    """Return a row in one form; `names` are those of the class numbers.

    Raises `ManifestError`, which names the file, if a class number has no name.
    """
    clip, audio, labels = (row[column] for column in TYPES)
    if isinstance(clip, bytes):
        clip = clip.decode(errors="backslashreplace")
    if not isinstance(audio, dict):
        audio = {"path" if isinstance(audio, str) else "bytes": audio}
    if not isinstance(labels, list):
        labels = [labels]
    found = []
    for label in labels:
        if isinstance(label, int) and label >= len(names):
            raise ManifestError(
                f"{path}: class number {label} of clip '{clip}', but there are names "
                f"of {len(names)} classes only ({REMEDY})"
            )
        if isinstance(label, int):
            label = names[label] if label >= 0 else None  # -1: unknown
        found += [label] if label else []
    return Row(clip or "", audio.get("bytes"), audio.get("path") or "", tuple(found))


def label_ids(classes: LabelSet) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """Return a function from stored labels, ids or names of classes, to label ids."""
    ids_by_name = dict(zip(classes.names, classes.ids, strict=True))

    @cache  # clips with equal labels share them in memory
    def ids(labels: tuple[str, ...]) -> tuple[str, ...]:
        found: list[str] = []
        for text in labels:
            # Names may contain commas, ids do not.
            parts = (text,) if text in ids_by_name else split_labels(text)
            for part in parts:
                found.append(part if part in classes else ids_by_name.get(part, part))
        return tuple(dict.fromkeys(found))

    return ids
