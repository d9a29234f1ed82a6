"""Pickles of ``torch.save``, interpreted without importing or calling what they name.

A pickle is a program: it may name any function of any module and call it. Here, a name
leads to a tensor that is read later, to a plain container, or to an inert
:class:`Placeholder`. Names of the standard library, torch and numpy that no checkpoint
needs, and functions of any other module, are refused.
"""

from __future__ import annotations

import pickle
import re
import struct
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import torch

STRICT = {*sys.stdlib_module_names, "torch", "numpy"}

# Names in these modules which are accepted, as placeholders.
HARMLESS = {
    "argparse": {"Namespace"},
    "builtins": {
        *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int"),
        *("list", "object", "range", "set", "slice", "str", "tuple"),
    },
    "collections": {"Counter", "defaultdict", "deque"},
    "copyreg": {"_reconstructor"},
    "datetime": {"date", "datetime", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "operator": {"getitem"},  # typing.List[int] is stored as a call of it
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath"},
    "types": {"SimpleNamespace"},
    "uuid": {"UUID"},
    "typing": {"Any", "Dict", "List", "Optional", "Tuple", "Union"},
    "numpy": {"bool_", "dtype", "float32", "float64", "int64", "ndarray"},
    "numpy.multiarray": {"_reconstruct"},
    "numpy.numeric": {"_frombuffer"},
    "torch": {"Size", "device"},
    "torch.serialization": {"_get_layout"},
}
RENAMED = {
    "_operator": "operator",
    "pathlib._local": "pathlib",  # Python 3.13
    "numpy.core.multiarray": "numpy.multiarray",
    "numpy._core.multiarray": "numpy.multiarray",
    "numpy.core.numeric": "numpy.numeric",
    "numpy._core.numeric": "numpy.numeric",
}

# Opcodes that torch never writes: memory of a given size, objects from elsewhere.
UNUSED_OPCODES = (
    *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER),
    *(pickle.EXT1, pickle.EXT2, pickle.EXT4),
)

STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


class RefusedError(Exception):
    """The pickle needs something that a checkpoint does not; the message names it."""


# A tuple has no attributes that a pickle could alter after they have been checked.
class Storage(NamedTuple):
    """The elements of one or several tensors: type, name and number."""

    dtype: torch.dtype
    key: str
    numel: int


class TensorRecord(NamedTuple):
    """Where a tensor is, as in ``torch.as_strided``."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        """The type of its elements."""
        return self.storage.dtype


class Placeholder:
    """An object of the pickle: what its class is called, its arguments and state."""

    name = ""
    args: tuple
    state: Any
    items: dict

    def __new__(cls, *args: Any, **_: Any) -> Placeholder:
        """Keep the arguments; nothing is called."""
        made = super().__new__(cls)
        object.__setattr__(made, "args", args)
        object.__setattr__(made, "state", None)
        object.__setattr__(made, "items", {})
        return made

    def __setstate__(self, state: Any) -> None:
        object.__setattr__(self, "state", state)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, item: Any) -> None:
        """Keep an item of a list."""
        self.items[len(self.items)] = item

    add = append  # of a set


class Entries(dict):
    """What an OrderedDict contains; arguments and attributes are not part of it."""

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


def _key(value: Any) -> Any:
    """Return a key of a mapping or set, or a placeholder for one that is slow to hash.

    The hash of a short pickle of nested tuples can take years, and that of large
    integers can be the same for all.
    """
    quick = type(value) in (str, bytes, bool, float, type(None)) or (
        type(value) is int and abs(value) < 2**63
    )
    return value if quick else Placeholder(value)


def _with_keys(code: bytes, keys: slice) -> Callable[[Any], None]:
    """Return the method for an opcode that hashes these items of the stack."""
    original = pickle._Unpickler.dispatch[code[0]]

    def load(unpickler: Any) -> None:
        """Replace the keys that are slow to hash, then do what the opcode says."""
        unpickler.stack[keys] = map(_key, unpickler.stack[keys])
        original(unpickler)

    return load


class Unpickler(pickle._Unpickler):
    """Interpret one pickle.

    It is the one in Python, since that in C allocates what a pickle's numbers say.

    Parameters
    ----------
    file
        The pickle, from its current position.
    """

    dispatch = {
        code: method
        for code, method in pickle._Unpickler.dispatch.items()
        if bytes([code]) not in UNUSED_OPCODES
    } | {
        code[0]: _with_keys(code, keys)
        for code, keys in (
            (pickle.SETITEM, slice(-2, -1)),
            (pickle.SETITEMS, slice(0, None, 2)),
            (pickle.DICT, slice(0, None, 2)),
            (pickle.ADDITEMS, slice(None)),
            (pickle.FROZENSET, slice(None)),
        )
    }

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for; raises `RefusedError` if for nothing."""
        # Pickles of protocol 2 contain the names that Python 2 had.
        module, name = NAME_MAPPING.get((module, name), (module, name))
        module = IMPORT_MAPPING.get(module, module)
        module = RENAMED.get(module, module)
        full_name = f"{module}.{name}"
        known: dict[str, Callable] = {
            "collections.OrderedDict": Entries,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
            "numpy.multiarray.scalar": self._numpy_scalar,
            "_codecs.encode": self._encode,
            "builtins.getattr": self._enum_member,
        }
        if full_name in known:
            return known[full_name]
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        strict = module.partition(".")[0] in STRICT
        # Elsewhere, classes are harmless, as they are only named: functions are not
        # what an object is made of.
        allowed = name in HARMLESS.get(module, ()) or (
            module.startswith("numpy.dtypes") and name.endswith("DType")
        )
        if allowed or (not strict and re.fullmatch(r"(\w+\.)*_?[A-Z]\w*", name)):
            return type("Placeholder", (Placeholder,), {"name": full_name})
        raise RefusedError(full_name)

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage that a tensor refers to."""
        kind, dtype, key, _, numel, *_ = pid
        if kind != "storage" or type(key) is not str:
            raise ValueError("malformed persistent id")
        if not isinstance(dtype, torch.dtype):
            raise ValueError("malformed storage")
        return Storage(dtype, key, _count(numel))

    @staticmethod
    def _tensor(
        storage: Storage, offset: int, shape: tuple, stride: tuple, *_: Any
    ) -> TensorRecord:
        if type(storage) is not Storage or len(shape) != len(stride):
            raise ValueError("malformed tensor")
        shape, stride = (tuple(map(_count, numbers)) for numbers in (shape, stride))
        steps = zip(shape, stride, strict=True)
        last = _count(offset) + sum((size - 1) * step for size, step in steps)
        if 0 not in shape and last >= storage.numel:
            raise ValueError("a tensor ends after its storage")
        return TensorRecord(storage, offset, shape, stride)

    @staticmethod
    def _parameter(data: TensorRecord, *_: Any) -> TensorRecord:
        return data

    @staticmethod
    def _enum_member(owner: Any, name: str) -> Placeholder:
        """Python 3.11 stores a member of an enum as a call of ``getattr``."""
        if not (isinstance(owner, type) and issubclass(owner, Placeholder)):
            raise RefusedError("builtins.getattr")
        return owner(name)

    @staticmethod
    def _encode(text: str, encoding: str = "latin1") -> bytes:
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise ValueError("malformed bytes")
        return text.encode("latin1")

    @staticmethod
    def _numpy_scalar(dtype: Placeholder, content: bytes = b"") -> Any:
        kind = dtype.args[0]
        formats = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "b1": "?"}
        if type(kind) is not str or kind not in formats:
            return Placeholder(dtype, content)
        return struct.unpack("<" + formats[kind], content)[0]


def plain(value: Any, done: dict[int, Any] | None = None) -> Any:
    """Return nested mappings, namespaces and containers of omegaconf as dicts.

    An omegaconf container keeps its items as nodes in ``_content``, a node its value in
    ``_val``. Anything else remains as it is.
    """
    done = {} if done is None else done  # what occurs twice is converted once
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, Placeholder) and isinstance(value.state, Mapping):
        state = value.state
        return plain(state.get("_content", state.get("_val", state)), done)
    if not isinstance(value, Mapping):
        return value
    result = done[id(value)] = {}
    result.update((name, plain(item, done)) for name, item in value.items())
    return result


def _count(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError("no number where a number of elements is expected")
    return number
