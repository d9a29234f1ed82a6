"""Files of torch.save: nothing that a pickle names is imported or called."""

import argparse
import builtins
import collections
import datetime
import enum
import functools
import importlib
import io
import operator
import os
import pathlib
import pickle
import runpy
import struct
import subprocess
import sys
import tarfile
import time
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import eat
from eat.interop.torch_file import TorchFile


class Call:
    """Calls a function when unpickled."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Kind(enum.Enum):
    """An enum that a reader does not have."""

    A = 1


class Holder:
    """A class that a reader does not have."""

    def __init__(self):
        self.value = 1


class Table(dict):
    """A mapping that a reader does not have."""


Pair = collections.namedtuple("Pair", ["first", "second"])


@pytest.fixture
def save(official_finetuned, tmp_path):
    """Save an official file with an object added to it."""
    checkpoint = torch.load(official_finetuned, weights_only=True)

    def write(added, **options):
        torch.save({**checkpoint, "args": added}, tmp_path / "x.pt", **options)
        return tmp_path / "x.pt"

    return write


@pytest.fixture
def spy(monkeypatch, tmp_path):
    """Return a path that an attack would create."""
    return tmp_path / "executed"


HARMLESS = {
    "namespace": argparse.Namespace(a=1, b=argparse.Namespace(c=[2])),
    "enum": Kind.A,
    "class": Kind,
    "object": Holder(),
    "subclass of dict": Table(a=1),
    "named tuple": Pair(1, 2),
    "defaultdict": collections.defaultdict(list, {1: [2]}),
    "counter": collections.Counter("abca"),
    "deque": collections.deque([1]),
    "set": {1, 2},
    "frozenset": frozenset({1}),
    "complex": 1j,
    "bytes": b"\xff\x00",
    "path": pathlib.PurePosixPath("x"),
    "date": datetime.datetime(2026, 1, 1),
    "large integer": 10**50,
    "SimpleNamespace": types.SimpleNamespace(a=1),
    "float64": np.float64(0.5),
    "float32": np.float32(0.5),
    "int64": np.int64(3),
    "bool_": np.bool_(True),
    "str_": np.str_("x"),
    "array": np.arange(5),
    "random state": np.random.RandomState(0).get_state(),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "bfloat16": torch.ones(2, dtype=torch.bfloat16),
    "torch types": (torch.float32, torch.Size([2]), torch.device("cpu")),
}


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_harmless_objects_are_read(save, official_finetuned, name, protocol):
    path = save(HARMLESS[name], pickle_protocol=protocol)
    expected = eat.load_classifier(official_finetuned)
    assert torch.equal(eat.load_classifier(path).head.weight, expected.head.weight)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3),
        (np.bool_(True), True),
    ],
)
def test_numpy_numbers_keep_their_value(save, value, expected):
    assert TorchFile(save(value)).content["args"] == expected


def test_names_of_older_numpy(save):
    """numpy 1 pickled them under numpy.core."""
    path = save(np.float64(0.1))
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            record = old.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in record
                record = record.replace(b"numpy._core.multi", b"numpy.core.multi")
            new.writestr(name, record)
    assert TorchFile(path).content["args"] == 0.1


def test_containers_of_omegaconf_are_settings(
    official_finetuned, tmp_path, monkeypatch
):
    """Older fairseq pickled the configuration with its own classes and enums."""

    def module(name, **names):
        made = types.ModuleType(name)
        for key, value in names.items():
            value.__module__, value.__qualname__ = name, key
            setattr(made, key, value)
        monkeypatch.setitem(sys.modules, name.partition(".")[0], types.ModuleType("x"))
        monkeypatch.setitem(sys.modules, name, made)

    class DictConfig:
        pass

    class AnyNode:
        pass

    PredictionMode = enum.Enum("PredictionMode", ["MEAN_POOLING", "CLS_TOKEN"])
    module("omegaconf.dictconfig", DictConfig=DictConfig)
    module("omegaconf.nodes", AnyNode=AnyNode)
    module("models.classification", PredictionMode=PredictionMode)

    def wrap(value):
        if isinstance(value, dict):
            node = DictConfig()
            content = {key: wrap(item) for key, item in value.items()}
            vars(node).update(_content=content, _metadata=argparse.Namespace())
            return node
        node = AnyNode()
        vars(node).update(_val=value, _parent=None)
        return node

    checkpoint = torch.load(official_finetuned, weights_only=True)
    checkpoint["cfg"]["model"]["prediction_mode"] = PredictionMode.MEAN_POOLING
    torch.save({**checkpoint, "cfg": wrap(checkpoint["cfg"])}, tmp_path / "x.pt")
    monkeypatch.undo()  # the classes are gone
    assert eat.load_classifier(tmp_path / "x.pt").pooling == "mean"


def test_the_format_before_torch_1_6(save, official_finetuned):
    path = save(np.float64(0.1), _use_new_zipfile_serialization=False)
    ours, theirs = eat.load_classifier(path), eat.load_classifier(official_finetuned)
    assert all(
        torch.equal(value, theirs.state_dict()[name])
        for name, value in ours.state_dict().items()
    )


# -- attacks ---------------------------------------------------------------------------

ATTACKS = {
    "system": lambda spy: Call(os.system, f"touch {spy}"),
    "eval": lambda spy: Call(eval, f"open({str(spy)!r}, 'w')"),
    "exec": lambda spy: Call(exec, f"open({str(spy)!r}, 'w')"),
    "open": lambda spy: Call(open, str(spy), "w"),
    "__import__": lambda spy: Call(builtins.__import__, "os"),
    "import_module": lambda spy: Call(importlib.import_module, "os"),
    "Popen": lambda spy: Call(subprocess.Popen, ["touch", str(spy)]),
    "run_path": lambda spy: Call(runpy.run_path, str(spy)),
    "partial": lambda spy: Call(functools.partial(os.mkdir, str(spy))),
    "methodcaller": lambda spy: operator.methodcaller("mkdir", str(spy)),
    "getattr": lambda spy: Call(getattr, Call(getattr, Path, "mkdir"), "__call__"),
    "system of getattr": lambda spy: Call(getattr, Call(os.mkdir, str(spy)), "real"),
    "_load_from_bytes": lambda spy: Call(
        torch.storage._load_from_bytes, pickle.dumps(Call(os.mkdir, str(spy)))
    ),
    "loads": lambda spy: Call(pickle.loads, pickle.dumps(Call(os.mkdir, str(spy)))),
    "load": lambda spy: Call(torch.load, str(spy)),
    "fromfile": lambda spy: Call(np.fromfile, str(spy)),
    "Linear": lambda spy: torch.nn.Linear(1, 1),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused_by_name(refusal, save, spy, name, zipped):
    path = save(ATTACKS[name](spy), _use_new_zipfile_serialization=zipped)
    message = refusal(eat.load_encoder, path)
    assert name.split()[0].replace("system", "") in message and "refused" in message
    assert not spy.exists()


PROTOCOL = b"\x80\x02"
# The tuple of twice the tuple before, 60 times: its hash and its text take years.
DOUBLED = b")q\0" + b"h\0h\0\x86q\0" * 60
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\n"


@pytest.mark.parametrize(
    "program",
    [
        PROTOCOL + b"cposix\nsystem\nX\x04\0\0\0true\x85R.",
        PROTOCOL + b"(cposix\nsystem\nX\x04\0\0\0trueo.",  # OBJ
        PROTOCOL + b"(X\x04\0\0\0trueiposix\nsystem\n.",  # INST
        PROTOCOL + b"ccollections\nOrderedDict\n}X\x01\0\0\0aX\x01\0\0\0bs\x86b.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        PROTOCOL + b"c__builtin__\neval\nX\x01\0\0\x001\x85R.",
        PROTOCOL + b"cos.path\nos.system\n.",
        PROTOCOL + b"}r\xff\xff\xff\xff.",  # a memo of 4 billion entries
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",  # bytes of that length
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",  # bytearray
        b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"x.",  # frame
        PROTOCOL + b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",  # integer
        PROTOCOL + b"\x82\x01.",  # extension
        PROTOCOL + b"]" * 50_000 + b"a" * 49_999 + b".",
        b"cposix\nsystem\n(S'true'\ntR.",  # protocol 0
        PROTOCOL + b"}" + DOUBLED + b"Ns.",
        PROTOCOL + b"}(" + DOUBLED + b"Nu.",
        PROTOCOL + b"(" + DOUBLED + b"N" + pickle.DICT + b".",
        PROTOCOL + b"ccollections\nOrderedDict\n(" + DOUBLED + b"N\x86tR.",
        b"\x80\x04\x8f(" + DOUBLED + b"\x90.",  # set
        b"\x80\x04(" + DOUBLED + b"\x91.",  # frozenset
        PROTOCOL + STORAGE + DOUBLED + b"NK\x01tQ.",
        PROTOCOL + b"cnumpy\ndtype\n" + DOUBLED + b"\x85R.",
        b"",
    ],
)
def test_hand_made_pickles(refusal, tmp_path, monkeypatch, program):
    monkeypatch.setattr(os, "system", pytest.fail)
    (tmp_path / "x.pt").write_bytes(program)
    refusal(eat.load_encoder, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", program)
    refusal(eat.load_encoder, tmp_path / "x.pt")


def test_mappings_nested_too_deeply(refusal, tmp_path):
    program = b"}X\5\0\0\0model}K\1NssX\3\0\0\0cfg}" + b"K\1}" * 5000 + b"s" * 5001
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", PROTOCOL + program + b".")
    assert "malformed" in refusal(eat.load_encoder, tmp_path / "x.pt")


def test_checked_tensors_cannot_be_altered(refusal, tmp_path):
    """BUILD gives an object the attributes of a mapping."""
    storage = (
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ"
    )
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"K\x00K\x01\x85K\x01\x85\x89NtR"
    )
    alter = b"}X\x05\0\0\0shapeK\x7fsb"
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", PROTOCOL + tensor + alter + b".")
    assert "malformed" in refusal(eat.load_encoder, tmp_path / "x.pt")


# -- archives --------------------------------------------------------------------------


@pytest.fixture
def rewrite(official_finetuned, tmp_path):
    """Write the records of an official file, altered."""

    def write(alter, compression=zipfile.ZIP_STORED):
        with zipfile.ZipFile(official_finetuned) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        root = next(name for name in records if name.endswith("data.pkl"))[:-8]
        alter(records, root)
        path = tmp_path / "x.pt"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in records.items():
                archive.writestr(name, content)
        return path

    return write


@pytest.mark.parametrize("name", ["/etc/x", "a/../../x", "..\\x", "\\\\host\\x"])
def test_names_that_point_out_of_the_archive(refusal, rewrite, name):
    path = rewrite(lambda records, _: records.update({name: b"x"}))
    assert "hostile" in refusal(eat.load_encoder, path)


def test_archive_that_expands_a_thousand_times(refusal, rewrite):
    def alter(records, root):
        records[root + "data/99999"] = bytes(2**26)

    start = time.perf_counter()
    path = rewrite(alter, zipfile.ZIP_DEFLATED)
    assert "hostile" in refusal(eat.load_encoder, path)
    assert time.perf_counter() - start < 5


def test_storage_that_is_smaller_than_declared(refusal, rewrite):
    def alter(records, root):
        records[root + "data/0"] = records[root + "data/0"][:-4]

    message = refusal(eat.load_encoder, rewrite(alter))
    assert "'0'" in message and "188 bytes instead of 192" in message


def test_missing_storage(refusal, rewrite):
    path = rewrite(lambda records, root: records.pop(root + "data/0"))
    assert "'0'" in refusal(eat.load_encoder, path)


def test_flipped_bit_of_a_weight(refusal, official_finetuned, tmp_path):
    with zipfile.ZipFile(official_finetuned) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data/5"))
        content = bytearray(archive.read(name))
    whole = bytearray(official_finetuned.read_bytes())
    whole[whole.index(bytes(content[:64])) + 3] ^= 1
    (tmp_path / "x.pt").write_bytes(whole)
    assert "corrupt" in refusal(eat.load_encoder, tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("shape", "stored"), [((7, 48), (1, 1)), ((2**20, 2**40), (1, 1))]
)
def test_tensors_larger_than_their_storage(
    refusal, official_finetuned, tmp_path, shape, stored
):
    checkpoint = torch.load(official_finetuned, weights_only=True)
    checkpoint["model"]["head.weight"] = torch.ones(stored).expand(shape)
    torch.save(checkpoint, tmp_path / "x.pt")
    assert "larger" in refusal(eat.load_encoder, tmp_path / "x.pt")


def test_tensor_beyond_its_storage(refusal, rewrite):
    """torch.load itself reads memory behind the record."""

    def alter(records, root):
        pickled = records[root + "data.pkl"]
        # An offset of 0 becomes one of 200 elements.
        at = pickled.index(b"_rebuild_tensor_v2")
        zero = pickled.index(b"QK\x00", at)
        records[root + "data.pkl"] = (
            pickled[: zero + 2] + bytes([200]) + pickled[zero + 3 :]
        )

    assert "storage" in refusal(eat.load_encoder, rewrite(alter))


def test_archives_of_other_programs(refusal, official, tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    assert "NumPy" in refusal(eat.load_encoder, tmp_path / "x.npz")
    torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "x.pt")
    assert "TorchScript" in refusal(eat.load_encoder, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(official, "model/checkpoint.pt")
    assert "model/checkpoint.pt" in refusal(eat.load_encoder, tmp_path / "x.zip")
    for mode, kind in (("w", "tar"), ("w:gz", "gzip"), ("w:xz", "xz"), ("w:bz2", "bz")):
        with tarfile.open(tmp_path / "x.pt", mode) as archive:
            archive.add(official, "x.pt")
        assert kind in refusal(eat.load_encoder, tmp_path / "x.pt")
