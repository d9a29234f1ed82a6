"""A folder of features: chunks, joining, resuming, other settings."""

import csv
import io
import json

import numpy as np
import pytest

from eat.errors import ExperimentError
from eat.inference.feature_chunk import ClipFeatures
from eat.inference.feature_folder import FeatureFolder

SETTINGS = {"pooling": "cls", "batch_size": 2}
IDS = [f"clip, {row}" for row in range(11)]
UNREADABLE = {4: "4.wav: not audio (replace it)", 10: "10.wav: no such file"}
TIMES = np.array([[0.0, 1.5]])
WARNED = {7: "silent: all samples are zero"}


@pytest.fixture
def features():
    found = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
    found[[*UNREADABLE]] = np.nan
    return found


@pytest.fixture
def store(tmp_path):
    """Eleven rows in chunks of four."""
    return FeatureFolder(tmp_path / "features", 11, 4, [3])


def write(store, features, *chunks):
    """Write chunks in groups of two, the last rows first."""
    for chunk in chunks:
        rows = store.rows(chunk)
        failed = {row: why for row, why in UNREADABLE.items() if row in rows}
        warned = {row: why for row, why in WARNED.items() if row in rows}
        good = [row for row in reversed(rows) if row not in failed]
        with store.write(chunk) as file:
            for i in range(0, len(good), 2):
                group = good[i : i + 2]
                file.add({r: ClipFeatures(features[[r]], TIMES) for r in group})
            file.close(failed, warned)


def test_chunks_cover_all_rows(store):
    rows = [[*store.rows(chunk)] for chunk in store.chunks()]
    assert rows == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert len(FeatureFolder(store.folder, 12, 4, [3]).chunks()) == 3


def test_joined_chunks_are_what_numpy_saves(store, features):
    store.start(SETTINGS, manifest="m.csv")
    write(store, features, 2, 0)
    assert [store.has(chunk) for chunk in store.chunks()] == [True, False, True]
    write(store, features, 1)
    assert not store.finished
    assert store.join(IDS) == 2
    saved = io.BytesIO()
    np.save(saved, features)
    assert (store.folder / "features.npy").read_bytes() == saved.getvalue()
    found = np.load(store.folder / "features.npy", mmap_mode="r")
    np.testing.assert_array_equal(found, features)
    with open(store.folder / "clips.csv", newline="") as file:
        table = [*csv.DictReader(file)]
    assert [int(line["row"]) for line in table] == [*range(11)]
    assert [line["path"] for line in table] == IDS
    assert {int(t["row"]): t["failure"] for t in table if t["failure"]} == UNREADABLE
    assert [t["parts"] for t in table] == [*"1111011111", "0"]
    assert {int(t["row"]): t["warnings"] for t in table if t["warnings"]} == WARNED
    record = json.loads((store.folder / "features.json").read_text())
    assert record == {
        "settings": SETTINGS,
        "manifest": "m.csv",
        "clips": 11,
        "shape": [3],
        "failed": 2,
        "warned": 1,
        "bytes": len(saved.getvalue()),
    }
    assert store.finished
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "clips.csv",
        "features.json",
        "features.npy",
    ]


def test_an_interrupted_join_can_be_repeated(store, features):
    store.start(SETTINGS)
    write(store, features, 0, 1, 2)

    def interrupted():
        yield from IDS[:3]
        raise OSError

    with pytest.raises(OSError):
        store.join(interrupted())
    assert not store.finished and all(map(store.has, store.chunks()))
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "chunks",
        "features.json",
    ]
    store.join(IDS)
    found = np.load(store.folder / "features.npy")
    np.testing.assert_array_equal(found, features)


def test_chunks_fix_the_settings(store, features):
    mean = {**SETTINGS, "pooling": "mean"}
    assert not store.conflict(SETTINGS)
    store.start(SETTINGS)
    assert not store.conflict(mean)  # nothing has been computed yet
    store.start(mean)
    write(store, features, 1)
    assert not store.conflict(mean)
    assert store.conflict(SETTINGS) == "pooling was mean, now cls"
    assert "batch_size" in store.conflict({"pooling": "mean"})
    store.start(mean, manifest="other.csv")
    assert "other" not in (store.folder / "features.json").read_text()
    write(store, features, 0, 2)
    store.join(IDS)
    assert store.conflict(SETTINGS) == "pooling was mean, now cls"
    assert not store.conflict(mean)


def test_files_of_another_tool_are_refused(store):
    store.folder.mkdir()
    (store.folder / "features.npy").write_bytes(b"another tool's")
    assert "features.npy" in store.conflict(SETTINGS)


def test_clean_up_removes_leftovers_of_killed_processes(store, features):
    store.start(SETTINGS)
    write(store, features, 0)
    (store.folder / ".features.npy.host-1.tmp").touch()  # of another machine
    store.clean_up()
    assert store.has(0)
    assert [*store.folder.glob(".*.tmp")]  # it may still be written
    (store.folder / "features.npy").touch()  # killed right after the join
    store.clean_up()
    names = sorted(path.name for path in store.folder.iterdir())
    assert names == ["features.json", "features.npy"]


def npz(**arrays):
    """Return the bytes of a chunk of four rows, with some arrays replaced."""
    empty = {"failed": np.empty(0, np.int64), "reasons": np.empty(0, str)}
    empty |= {"warned": empty["failed"], "warnings": empty["reasons"]}
    group = {"clips0": np.arange(4), "parts0": np.ones(4, int)}
    group |= {"values0": np.ones((4, 3), np.float32), "times0": np.ones((4, 2))}
    content = io.BytesIO()
    whole = {"groups": np.array(1), **group, **empty, **arrays}
    np.savez(content, **{key: whole[key] for key in whole if whole[key] is not None})
    return content.getvalue()


NAN = np.ones((4, 3), np.float32)
NAN[2, 1] = np.nan
FLIPPED = bytearray(npz())
FLIPPED[FLIPPED.index(b"values0.npy") + 180] ^= 64  # within the features
DAMAGED = {
    "empty": b"",
    "cut": npz()[:-40],
    "half": npz()[: len(npz()) // 2],
    "not zip": b"x" * 900,
    "parquet": b"PAR1" + bytes(400) + b"PAR1",
    "flipped bit": bytes(FLIPPED),
    "rows": npz(values0=np.ones((3, 3), np.float32)),
    "width": npz(values0=np.ones((4, 2), np.float32)),
    "dimensions": npz(values0=np.ones(12, np.float32)),
    "dtype": npz(values0=np.ones((4, 3))),
    "half precision": npz(values0=np.ones((4, 3), np.float16)),
    "integers": npz(values0=np.ones((4, 3), np.int64)),
    "NaN": npz(values0=NAN),
    "infinite": npz(values0=np.where(np.isnan(NAN), np.inf, NAN)),
    "objects": npz(values0=np.full((4, 3), None, object)),
    "no features": npz(values0=None),
    "no times": npz(times0=None),
    "times": npz(times0=np.ones((3, 2))),
    "no reasons": npz(reasons=None),
    "a group is missing": npz(groups=np.array(0)),
    "a group too many": npz(groups=np.array(2)),
    "fewer clips": npz(clips0=np.arange(3)),
    "a clip twice": npz(clips0=np.array([0, 1, 2, 2])),
    "other parts": npz(parts0=np.array([1, 1, 1, 2])),
    "another chunk's rows": npz(failed=np.array([4]), reasons=np.array(["x"])),
    "more rows than reasons": npz(failed=np.array([0, 1]), reasons=np.array(["x"])),
    "failed but finite": npz(failed=np.array([1]), reasons=np.array(["x"])),
    "warnings of other rows": npz(warned=np.array([9]), warnings=np.array(["silent"])),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_chunks_are_computed_again_and_never_joined(store, features, name):
    store.start(SETTINGS)
    write(store, features, 0, 1, 2)
    path = store.folder / "chunks" / "0000000.npz"
    assert store.has(0)
    path.write_bytes(DAMAGED[name])
    assert not store.has(0) and store.has(1)
    with pytest.raises(ExperimentError, match="0000000.npz: "):
        store.join(IDS)
    assert not store.finished
    write(store, features, 0)
    store.join(IDS)
    np.testing.assert_array_equal(np.load(store.folder / "features.npy"), features)


def test_a_missing_chunk_is_not_joined(store, features):
    store.start(SETTINGS)
    write(store, features, 0, 2)
    with pytest.raises(ExperimentError, match="0000001.npz: "):
        store.join(IDS)
    assert not store.finished


def test_features_of_no_clip_are_not_complete(store):
    store.start(SETTINGS)
    for chunk in store.chunks():
        with store.write(chunk) as file:
            file.close(dict.fromkeys(store.rows(chunk), "not finite"), {})
    with pytest.raises(ExperimentError, match="none of 11 "):
        store.join(IDS)
    assert not store.finished


def test_an_array_of_clips_is_not_mixed_with_frames(store, features):
    store.start(SETTINGS)
    write(store, features, 0, 1, 2)
    store.join(IDS)
    frames = {**SETTINGS, "granularity": "frames"}
    other = FeatureFolder(store.folder, 11, 4, [3], parts=True)
    assert not other.finished
    assert other.conflict(frames) == "granularity was None, now frames"


def test_a_file_has_its_own_folder(tmp_path, features):
    store = FeatureFolder(tmp_path / "birds.npy", 11, 4, [3])
    store.start(SETTINGS)
    write(store, features, 0, 1, 2)
    store.join(IDS)
    np.testing.assert_array_equal(np.load(tmp_path / "birds.npy"), features)
    names = sorted(path.name for path in (tmp_path / "birds.npy.info").iterdir())
    assert names == ["clips.csv", "features.json"]
    assert FeatureFolder(tmp_path / "birds.csv", 11, 4, [3]).conflict(SETTINGS) == ""
    (tmp_path / "mine.npy").touch()
    assert "mine.npy" in FeatureFolder(tmp_path / "mine.npy", 11, 4, [3]).conflict({})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("features.npy", b""),
        ("features.npy", b"another tool's"),
        ("features.npy", None),  # cut
        ("features.json", b""),
        ("features.json", b'{"settings": 3}'),
        ("features.json", b'{"clips": 11}'),
        ("features.json", b"[1]"),
        ("features.json", b"\xff\xfe"),
    ],
)
def test_damaged_results_are_refused(store, features, name, content):
    store.start(SETTINGS)
    write(store, features, 0, 1, 2)
    store.join(IDS)
    assert not store.conflict(SETTINGS)
    path = store.folder / name
    path.write_bytes(path.read_bytes()[:-8] if content is None else content)
    with pytest.raises(ExperimentError, match=f"{name}: "):
        store.conflict(SETTINGS)
