"""Files of ``torch.save``, without unpickling: containers, and tensors read on demand.

Of the tensors, only position and shape are taken from the pickle, after comparing them
with what the file holds. What a training adds to its weights, such as the optimizer's
state, is never read.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch
from torch import Tensor

from eat.errors import CheckpointError
from eat.interop.file_kinds import cannot_be_read, open_regular, what_is
from eat.interop.stored import StoredTensor
from eat.interop.torch_pickle import (
    RefusedError,
    Storage,
    TensorRecord,
    Unpickler,
    plain,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first of the pickles in a file before torch 1.6
MAX_PICKLE = 2**21  # bytes; that of EAT-large with its optimizer is below 2**20
MAX_EXPANSION = 20  # compressed weights become some 10% smaller, zeros 1000 times


class TorchFile:
    """What a file contains, under the names that it has there.

    Parameters
    ----------
    path
        The file. Raises `CheckpointError` if it cannot be read, is not of
        ``torch.save``, or contains what a checkpoint does not need.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        # Places of the storages: a record of the archive, or offset and size.
        self.where: dict[str, tuple[int, int] | zipfile.ZipInfo] = {}
        self.archive: zipfile.ZipFile | None = None
        try:
            with open_regular(self.path) as file:
                head = file.read(512)
                self.is_zip = head.startswith(b"PK\x03\x04")
                file.seek(0)
                if kind := None if self.is_zip else what_is(self.path, head):
                    raise CheckpointError(f"{path}: {kind}")
                self.content = self._read_zip() if self.is_zip else _legacy(file, self)
        except OSError as error:
            raise cannot_be_read(path, error) from error
        except RefusedError as error:
            kind = "hostile, if you do not know why"
            if str(error).startswith("torch."):
                kind = "a pickled module, or unusual tensors"
            raise CheckpointError(
                f"{path}: contains pickled objects: '{error}' is refused, since no EAT "
                f"checkpoint needs it ({kind}; nothing was executed; save only tensors "
                "and numbers)"
            ) from error
        except CheckpointError:
            raise
        # A corrupt pickle raises anything.
        except Exception as error:
            raise CheckpointError(
                f"{path}: cannot be read as plain tensors; it is malformed or "
                f"truncated ({_short(error)}; download or copy it again)"
            ) from error

    def mapping(self, value: Any) -> dict[str, Any]:
        """Return a mapping, with nested ones, as dicts; empty if it is none."""
        try:
            value = plain(value)
        except RecursionError as error:
            raise CheckpointError(
                f"{self.path}: malformed, its mappings are nested too deeply (hostile?)"
            ) from error
        return value if isinstance(value, dict) else {}

    def tensors(self, value: Any) -> dict[str, StoredTensor]:
        """Return the tensors of a mapping; other entries are not weights."""
        if not isinstance(value, Mapping):
            return {}
        records = {
            name: record
            for name, record in value.items()
            if isinstance(name, str) and isinstance(record, TensorRecord)
        }
        # A storage that many tensors share would make the model larger than the file.
        size = sum(math.prod(r.shape) * r.dtype.itemsize for r in records.values())
        stored = {r.storage for r in records.values()}
        if size > sum(storage.numel * storage.dtype.itemsize for storage in stored):
            raise CheckpointError(
                f"{self.path}: its tensors are larger than what it stores of them "
                "(hostile? save contiguous tensors)"
            )
        return {
            name: StoredTensor(record.shape, record.dtype, partial(self._read, record))
            for name, record in records.items()
        }

    def _read_zip(self) -> Any:
        self.archive = archive = zipfile.ZipFile(self.path)
        entries = {entry.filename: entry for entry in archive.infolist()}
        _check_entries(archive.infolist(), self.path)
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        scripted = any(name.endswith("/constants.pkl") for name in entries)
        if len(pickles) != 1 or scripted:
            raise CheckpointError(f"{self.path}: {what_zip(entries)}")
        root = pickles[0].removesuffix("data.pkl")
        if entries[pickles[0]].file_size > MAX_PICKLE:
            raise ValueError("the pickle is too large")
        byteorder = root + "byteorder"
        if byteorder in entries and archive.read(byteorder) != b"little":
            raise CheckpointError(
                f"{self.path}: was written on a big-endian machine (save it again on a "
                "little-endian one)"
            )
        prefix = root + "data/"
        self.where = {
            name.removeprefix(prefix): entry
            for name, entry in entries.items()
            if name.startswith(prefix)
        }
        return Unpickler(io.BytesIO(archive.read(pickles[0]))).load()

    def _read(self, record: TensorRecord) -> Tensor:
        """Read a tensor; its shape is by now that of the model's parameter."""
        storage = record.storage
        try:
            flat = torch.frombuffer(self._content(storage), dtype=storage.dtype)
            return flat.as_strided(record.shape, record.stride, record.offset)
        except OSError as error:
            raise cannot_be_read(self.path, error) from error
        except Exception as error:
            raise CheckpointError(
                f"{self.path}: the record '{storage.key}' is missing or corrupt "
                f"({_short(error)}; download or copy the file again)"
            ) from error

    def _content(self, storage: Storage) -> bytearray:
        """Return the bytes of a storage, as many as the pickle says."""
        place = self.where[storage.key]
        size = storage.numel * storage.dtype.itemsize
        available = place.file_size if isinstance(place, zipfile.ZipInfo) else place[1]
        if available != size:
            raise ValueError(f"{available} bytes instead of {size}")
        content = bytearray(size)
        if isinstance(place, zipfile.ZipInfo):
            assert self.archive is not None
            with self.archive.open(place) as record:
                read = record.readinto(content)  # type: ignore[attr-defined]
                record.read(1)  # at the end, the checksum is compared
        else:
            with open(self.path, "rb") as file:
                file.seek(place[0])
                read = file.readinto(content)
        if read != size:
            raise ValueError(f"{read} bytes instead of {size}")
        return content


def what_zip(names: Mapping[str, Any]) -> str:
    """Say what a zip file is that ``torch.save`` has not written."""
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript archive, not a checkpoint (give its source)"
    if any(name.endswith(".npy") for name in names):
        return "a NumPy .npz file, not a checkpoint"
    first = ascii(min(names, default="nothing"))[:80]
    return f"a zip archive of {first}, not a checkpoint (unpack it)"


def _check_entries(entries: list[zipfile.ZipInfo], path: Path) -> None:
    """Refuse an archive that would be dangerous to unpack, here or anywhere."""
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts:
            raise CheckpointError(
                f"{path}: contains the name {ascii(entry.filename)[:80]}, which points "
                "out of the archive: hostile, nothing was read (delete it)"
            )
    size = sum(entry.file_size for entry in entries)
    if size > MAX_EXPANSION * path.stat().st_size:
        raise CheckpointError(
            f"{path}: {path.stat().st_size} bytes that claim to hold {size}: hostile, "
            "nothing was read (delete it)"
        )
    if len({entry.filename for entry in entries}) != len(entries):
        raise ValueError("two records of the same name")


def _legacy(file: BinaryIO, torch_file: TorchFile) -> Any:
    """Read the format before torch 1.6: five pickles, then the storages."""
    start = file.read(2)
    if start[:1] != pickle.PROTO:
        begin = ascii(start + file.read(6))[2:-1]
        raise CheckpointError(
            f"{torch_file.path}: malformed, begins with {begin} as no checkpoint of "
            "PyTorch does (give another file, or download it again)"
        )
    file.seek(0)
    storages: dict[str, Storage] = {}

    class LegacyUnpickler(Unpickler):
        """Tensors that share a storage must get the same one."""

        def persistent_load(self, pid: Any) -> Storage:
            """Return the storage, the first one of its key."""
            storage = super().persistent_load(pid)
            return storages.setdefault(storage.key, storage)

    pickles = io.BytesIO(file.read(MAX_PICKLE))
    content = Unpickler(pickles).load()
    if content != LEGACY_MAGIC:
        raise CheckpointError(
            f"{torch_file.path}: a pickle of a {type(content).__name__}, not a file of "
            "torch.save (save it with torch.save)"
        )
    for _ in range(2):  # version of the protocol, sizes of C types
        Unpickler(pickles).load()
    content = LegacyUnpickler(pickles).load()
    keys = Unpickler(pickles).load()
    file.seek(pickles.tell())
    end = torch_file.path.stat().st_size
    for key in keys:
        (numel,) = struct.unpack("<q", file.read(8))
        size = numel * storages[key].dtype.itemsize
        if numel != storages[key].numel or file.tell() + size > end:
            raise ValueError(f"storage {key} is truncated")
        torch_file.where[key] = (file.tell(), size)
        file.seek(size, io.SEEK_CUR)
    return content


def _short(error: Exception) -> str:
    """Return an error's class and first words, on one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {ascii(words)[1:-1][:100]}"
