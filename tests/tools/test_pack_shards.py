"""tools/pack_shards.py: parts of a job array, a second call, the recipe on shards."""

import json
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
import soundfile

import pack_shards
from eat.data.compact_manifest import CompactManifest
from eat.data.manifest import ManifestRow, write_manifest
from eat.data.shard_writer import pack_shard

ROOT = Path(__file__).parents[2]

NAMES = ("pretrain", "balanced_train", "eval")
OPTIONS = (
    "--number_of_epochs 1 --clones 2 --steps_per_epoch 2 --batch_size 2 "
    "--log_interval 1 --held_out 0.5"
).split()


class LocalPool:
    """A process pool that works in this process."""

    def __init__(self, *options, **more):
        self.calls = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def shutdown(self, cancel_futures):
        pass

    def submit(self, call, task):
        self.calls.append(task)
        future = pack_shards.Future()
        try:
            future.set_result(call(task))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def manifests(load_recipe, audioset, tmp_path):
    load_recipe("AudioSet").prepare_audioset(audioset, tmp_path / "manifests")
    return [tmp_path / "manifests" / f"{n}.csv" for n in NAMES]


@pytest.fixture
def call(manifests, audioset, tmp_path, monkeypatch):
    def run(output, *options):
        monkeypatch.setattr(pack_shards, "ProcessPoolExecutor", LocalPool)
        size = ["--clips_per_shard", "7"]
        folders = ["--data_folder", str(audioset), "--output", str(tmp_path / output)]
        pack_shards.main([*map(str, manifests), *folders, *size, *options])
        return tmp_path / output

    return run


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_parts_equal_the_whole(call, capsys):
    whole = call("whole")
    assert capsys.readouterr().out.startswith("48 ")
    call("parts", "--part", "2/3")
    assert "parts 1,3 of 3 are missing" in capsys.readouterr().out
    assert not (whole.parent / "parts" / "eval.csv").exists()
    with pytest.raises(SystemExit, match=r"^error: .*/parts: parts 1,3 of 3 "):
        call("parts", "--merge", "3")
    call("parts", "--part", "1/3")
    parts = call("parts", "--part", "3/3")
    assert content(parts) == content(whole)
    (parts / "eval.csv").unlink()
    assert content(call("parts", "--merge", "3")) == content(whole)
    assert content(call("parts", "--part", "9/9")) == content(whole)  # none is its own
    assert len(list(parts.glob("*.tar"))) == 7


def test_second_call_packs_what_is_missing(call, monkeypatch):
    output = call("out")
    before = content(output)
    (output / "shard-000003.tar").unlink()
    packed = []
    monkeypatch.setattr(
        pack_shards, "pack_shard", lambda task: packed.append(task) or pack_shard(task)
    )
    call("out")
    assert [task.number for task in packed] == [3] and content(output) == before


def test_temporary_files_of_killed_processes_are_removed(call, tmp_path):
    (tmp_path / "out").mkdir()
    host = socket.gethostname()
    names = [f".shard-000000.tar.{host}-{2**22 + 1}.tmp"]  # above all process numbers
    names += [
        f".shard-000099.tar.{host}-{os.getpid()}.tmp",
        ".shard-000001.tar.elsewhere-1.tmp",
    ]
    for name in names:
        (tmp_path / "out" / name).touch()
    output = call("out")
    assert {path.name for path in output.glob(".*.tmp")} == set(names[1:])


def test_other_options_are_refused(call):
    output = call("out")
    before = content(output)
    with pytest.raises(SystemExit, match="^error: .*shard-000000.tar: "):
        call("out", "--max_seconds", "1")
    assert content(output) == before


def test_manifests_are_not_overwritten(call):
    with pytest.raises(SystemExit, match="^error: .*/manifests: .*--output"):
        call("manifests")


def test_corrupt_shards_are_named(call, capsys):
    output = call("out")
    pack_shards.main(["--verify", "--output", str(output)])
    assert ".tar" not in capsys.readouterr().out.splitlines()[-1]
    (output / "shard-000001.tar").write_bytes(b"")
    with pytest.raises(SystemExit, match=f"^error: {output}: 1 "):
        pack_shards.main(["--verify", "--output", str(output)])
    assert "shard-000001.tar: " in capsys.readouterr().out


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b"])
def test_invalid_part(part, capsys):
    with pytest.raises(SystemExit):
        pack_shards.main(["--output", "x", "--verify", "--part", part])
    assert f"--part: '{part}'" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_pack_the_same_as_one(manifests, audioset, tmp_path, call):
    folders = ["--data_folder", str(audioset), "--clips_per_shard", "7"]
    output = ["--output", str(tmp_path / "two"), "--workers", "2"]
    pack_shards.main([*map(str, manifests), *folders, *output])
    assert content(tmp_path / "two") == content(call("one"))


@pytest.mark.slow
def test_a_run_on_shards_equals_the_run_on_files(run_recipe, audioset, call, tmp_path):
    """The mini corpus has 16 kHz and 16 bits: packing it is lossless."""
    shards, runs = call("out"), []
    for data, more in (
        (audioset, ()),
        (shards, ("--corpus", "shards", "--manifest_folder", shards)),
    ):
        run = tmp_path / f"run{len(runs)}"
        options = [*OPTIONS, "--train_manifest", "pretrain", *more]
        results = run_recipe("AudioSet", "pretrain_mini", data, run, *options)
        records = [json.loads(line) for line in (run / "metrics.jsonl").open()]
        for record in records:
            record.pop("clips_per_second", None)
            record.pop("data_share", None)
        runs.append(records)
        assert results["data"]["pretrain"]["used"] == 36
    assert runs[0] == runs[1] and len(runs[0]) == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("--clips_per_shard", v) for v in ("0", "-1", "nan", "1.5", "", "1e400")],
        *[("--max_seconds", v) for v in ("0", "-1", "nan", "inf", "1e-9", "x")],
        *[("--workers", v) for v in ("0", "-2", "many")],
    ],
)
def test_absurd_options_are_refused(call, tmp_path, capsys, option, value):
    with pytest.raises(SystemExit) as stop:
        call("out", option, value)
    assert stop.value.code == 2 and option in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def tones(tmp_path):
    """A corpus of float files, one of them silent, one short, one too loud."""
    folder, tone = tmp_path / "tones", 0.5 * np.sin(0.1 * np.arange(8000))
    folder.mkdir()
    wavs = {"good": tone, "loud": 3 * tone, "zero": 0 * tone, "tiny": tone[:200]}
    for name, wav in wavs.items():
        soundfile.write(folder / f"{name}.wav", wav, 16000, subtype="FLOAT")
    rows = [ManifestRow(name, 0.5, f"{name}.wav") for name in wavs]
    (tmp_path / "lists").mkdir()
    write_manifest(tmp_path / "lists" / "all.csv", rows)
    return folder


def pack(tmp_path, data, output, *manifests, options=()):
    names = manifests or ("all.csv",)
    lists = [str(tmp_path / "lists" / name) for name in names]
    folders = ["--data_folder", str(data), "--output", str(output)]
    pack_shards.main([*lists, *folders, *options])


@pytest.fixture(autouse=True)
def one_process(monkeypatch, request):
    if "tones" in request.fixturenames:
        monkeypatch.setattr(pack_shards, "ProcessPoolExecutor", LocalPool)


def test_clipped_silent_and_short_clips_are_counted(tones, tmp_path, capsys):
    pack(tmp_path, tones, tmp_path / "out")
    captured = capsys.readouterr()
    assert captured.out.startswith("4 ")
    lines = captured.err.splitlines()
    named = {
        name: [x for x in lines if f" {name}: " in x]
        for name in ("loud", "zero", "tiny")
    }
    assert (
        all(len(found) == 1 for found in named.values()) and "good" not in captured.err
    )
    assert re.search(r"\b1 clips .*\b1\.5\b", *named["loud"])


def test_a_missing_or_own_folder_is_refused(tones, tmp_path):
    before = content(tones)
    with pytest.raises(SystemExit, match="^error: .*nowhere: .*--data_folder"):
        pack(tmp_path, tmp_path / "nowhere", tmp_path / "out")
    for output in (tones, tones / ".." / "tones"):
        with pytest.raises(SystemExit, match="^error: .*tones: .*--output"):
            pack(tmp_path, tones, output)
    with pytest.raises(SystemExit, match="^error: .*good.wav: "):
        pack(tmp_path, tones, tones / "good.wav")
    assert content(tones) == before and not (tmp_path / "out").exists()


@pytest.mark.parametrize("index", ["", "[1]", "{}", '{"made_from": 1}', "\\u0000"])
def test_a_damaged_index_is_named(tones, tmp_path, index):
    pack(tmp_path, tones, tmp_path / "out")
    (tmp_path / "out" / "shard-000000.json").write_text(index)
    with pytest.raises(SystemExit, match="^error: .*shard-000000.json: "):
        pack(tmp_path, tones, tmp_path / "out")


def test_no_manifest_without_clips_is_written(tones, tmp_path):
    """Neither from an empty list, nor if no clip of one of the lists can be read."""
    lists = tmp_path / "lists"
    write_manifest(lists / "empty.csv", [])
    gone = [ManifestRow("gone", 0.5, "gone.wav"), ManifestRow("lost", 0.5, "lost.wav")]
    write_manifest(lists / "gone.csv", gone)
    for names in (
        ["empty.csv"],
        ["all.csv", "empty.csv"],
        ["gone.csv"],
        ["all.csv", "gone.csv"],
    ):
        with pytest.raises(SystemExit, match=f"^error: .*({names[-1]}|shard-0).*: "):
            pack(tmp_path, tones, tmp_path / "out", *names)
        assert not list((tmp_path / "out").glob("*.csv"))


def test_a_shard_of_unreadable_clips_stops_no_other(tones, tmp_path):
    lists = tmp_path / "lists"
    rows = [ManifestRow("c0", 0.5, "loud.wav"), ManifestRow("gone", 0.5, "gone.wav")]
    write_manifest(lists / "two.csv", rows)
    pack(
        tmp_path, tones, tmp_path / "out", "two.csv", options=("--clips_per_shard", "1")
    )
    assert list(CompactManifest(tmp_path / "out" / "two.csv").ids) == ["c0"]
    assert "gone" in (tmp_path / "out" / "skipped.csv").read_text()
