"""A compact manifest has the content of the CSV file, in little memory."""

import csv
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eat.data.compact_manifest import CompactManifest, compact
from eat.data.manifest import ManifestRow, write_manifest
from eat.errors import ManifestError

ROOT = Path(__file__).parents[3]


def write(path, rows):
    write_manifest(path, rows)
    return path


def test_rows_are_those_of_the_file(tmp_path):
    rows = [
        ManifestRow("a", 1.0, "audio/ä, b.wav", ("/m/1", "/m/2")),
        ManifestRow("日本", 2.0, "/elsewhere/c.wav"),
        ManifestRow("c", 3.0, "c.wav", ("/m/1", "/m/2")),
    ]
    compact = CompactManifest(write(tmp_path / "m.csv", rows))
    assert len(compact) == 3
    assert list(compact.ids) == ["a", "日本", "c"]
    wavs = ["$data_root/audio/ä, b.wav", "/elsewhere/c.wav", "$data_root/c.wav"]
    assert list(compact.wavs) == wavs
    assert list(compact.labels) == ["/m/1;/m/2", "", "/m/1;/m/2"]


def test_columns_may_be_in_any_order(tmp_path):
    (tmp_path / "m.csv").write_text("labels,more,wav,ID,duration\nx,?,w.wav,a,1\n")
    compact = CompactManifest(tmp_path / "m.csv")
    assert (compact.ids[0], compact.wavs[0], compact.labels[0]) == ("a", "w.wav", "x")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_manifest_saved_by_a_spreadsheet(tmp_path, encoding, delimiter):
    rows = [ManifestRow(f"clip{i}", i, f"é/{i}.wav", ("a", "b")) for i in range(9)]
    before = CompactManifest(write(tmp_path / "m.csv", rows))
    text = io.StringIO()
    with open(tmp_path / "m.csv", newline="", encoding="utf-8") as file:
        csv.writer(text, delimiter=delimiter).writerows(csv.reader(file))
    (tmp_path / "m.csv").write_bytes(text.getvalue().encode(encoding))
    after = CompactManifest(tmp_path / "m.csv")
    for column in ("ids", "wavs", "labels"):
        assert list(getattr(after, column)) == list(getattr(before, column))


def test_a_manifest_that_was_cut(tmp_path):
    content = write(tmp_path / "m.csv", [ManifestRow("clip", 1.0, "a.wav")]).read_text()
    (tmp_path / "m.csv").write_text(content[:-9])
    with pytest.raises(ManifestError, match="m.csv: line 2: 3 "):
        CompactManifest(tmp_path / "m.csv")


def test_strings_of_any_kind():
    texts = ["", "ä", "\udcff.wav", "bc", ""]
    strings = compact(texts)
    assert list(strings) == [strings[i] for i in range(5)] == texts
    assert strings.any_starts_with("bc") and not strings.any_starts_with("c")
    assert strings.sha256 != compact(["", "ä", "\udcff.wav", "b", "c"]).sha256


def test_labels_by_number(tmp_path):
    labels = [("b", "a"), (), ("c",), ("a",), ("a", "c", "b")]
    rows = [ManifestRow(f"{i}", 1.0, "a.wav", part) for i, part in enumerate(labels)]
    found = CompactManifest(write(tmp_path / "m.csv", rows)).labels
    assert found.names == ["b", "a", "c"] and found.find_several() == 0
    codes, sizes = found.codes(np.array([4, 1, 2]))
    assert codes.tolist() == [1, 2, 0, 2] and sizes.tolist() == [3, 0, 1]
    assert [part.tolist() for part in found.codes(np.array([], int))] == [[], []]
    single = CompactManifest(write(tmp_path / "m.csv", rows[1:4])).labels
    assert single.find_several() is None


def test_data_workers_get_the_same_clips(tmp_path):
    manifest = CompactManifest(
        write(tmp_path / "m.csv", [ManifestRow("a", 1, "a.wav")])
    )
    (tmp_path / "m.csv").unlink()
    assert [*pickle.loads(pickle.dumps(manifest)).ids] == ["a"]


def test_duplicate_ids_are_found_among_many(tmp_path):
    rows = [ManifestRow(f"clip{i}", 1.0, f"{i}.wav") for i in range(5000)]
    CompactManifest(write(tmp_path / "m.csv", rows))
    rows[4321] = rows[1234]
    with pytest.raises(ManifestError, match="m.csv: .*'clip1234'"):
        CompactManifest(write(tmp_path / "m.csv", rows))


def measure(rows):
    command = [sys.executable, ROOT / "tools" / "benchmarks" / "manifest.py", "--json"]
    answer = subprocess.run(
        [*command, "--rows", str(rows), "--ours_only"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


@pytest.mark.slow
def test_memory_of_a_hundred_thousand_rows(tmp_path):
    metrics = measure(100_000)["ours"]
    assert metrics["memory_mb"] < 90 and metrics["worker_mb"] < 20


@pytest.mark.slow
def test_memory_of_two_million_rows(tmp_path):
    first, again = measure(2_000_000).values()
    assert first["memory_mb"] < 300 and first["worker_mb"] < 50
    assert first["seconds"] < 30
    assert again["memory_mb"] < 50 and again["worker_mb"] < 50
    assert again["seconds"] < 2
