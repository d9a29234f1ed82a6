"""A folder of features: chunks, joining, resuming, other settings."""

import csv
import io
import json

import numpy as np
import pytest

from eat.inference.extraction import FeatureFolder

SETTINGS = {"pooling": "cls", "batch_size": 2}
IDS = [f"clip, {row}" for row in range(11)]
UNREADABLE = {4: "4.wav: not audio (replace it)", 10: "10.wav: no such file"}


@pytest.fixture
def features():
    found = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
    found[[*UNREADABLE]] = np.nan
    return found


@pytest.fixture
def store(tmp_path):
    """Eleven rows in chunks of four."""
    return FeatureFolder(tmp_path / "features", 11, 4)


def write(store, features, *chunks):
    for chunk in chunks:
        rows = store.rows(chunk)
        failed = {row: why for row, why in UNREADABLE.items() if row in rows}
        store.write(chunk, features[rows.start : rows.stop], failed)


def test_chunks_cover_all_rows(store):
    rows = [[*store.rows(chunk)] for chunk in store.chunks()]
    assert rows == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert len(FeatureFolder(store.folder, 12, 4).chunks()) == 3


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
    assert [line["id"] for line in table] == IDS
    assert {int(t["row"]): t["unreadable"] for t in table if t["unreadable"]} == (
        UNREADABLE
    )
    record = json.loads((store.folder / "features.json").read_text())
    assert record == {
        "settings": SETTINGS,
        "manifest": "m.csv",
        "clips": 11,
        "width": 3,
        "unreadable": 2,
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
    (store.folder / ".features.npy.host-1.tmp").touch()  # killed during the join
    store.clean_up()
    assert store.has(0)
    (store.folder / "features.npy").touch()  # killed right after the join
    store.clean_up()
    names = sorted(path.name for path in store.folder.iterdir())
    assert names == ["features.json", "features.npy"]
