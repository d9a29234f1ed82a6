"""Shards contain the clips of their manifests, bit by bit, however they are packed."""

import io
import json
import re
import tarfile

import numpy as np
import pytest
import soundfile
import torch
import webdataset

from eat.audio.io import read_audio
from eat.data.manifest import ManifestRow, write_manifest
from eat.data.shard_writer import (
    ClipUnion,
    corrupt_shards,
    is_packed,
    missing_shards,
    pack_shard,
    shard_tasks,
    to_flac,
    write_manifests,
)
from eat.errors import ManifestError


@pytest.fixture
def corpus(tmp_path):
    """Seven clips, two of them bad; a manifest of all and one of the later ones."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(7):
        steps = rng.integers(-(2**15), 2**15, 3000 + 100 * i, dtype=np.int16)
        soundfile.write(tmp_path / f"{i}.wav", steps, 16000, "PCM_16")
        labels = ("/m/a", "/m/b")[: i % 3]
        rows.append(ManifestRow(f"odd/id.{i}", 0.2, f"{i}.wav", labels))
    (tmp_path / "2.wav").write_bytes(b"text")
    (tmp_path / "5.wav").unlink()
    write_manifest(tmp_path / "all.csv", rows)
    write_manifest(tmp_path / "late.csv", rows[4:])
    (tmp_path / "labels.csv").write_text("index,mid,display_name\n0,/m/a,A\n")
    return tmp_path


def tasks_of(corpus, out, size=3, seconds=None, names=("all", "late")):
    out.mkdir(exist_ok=True)
    sources = [corpus / f"{name}.csv" for name in names]
    clips = ClipUnion(sources)
    return clips, list(shard_tasks(clips, out, str(corpus), size, seconds)), sources


def pack(corpus, out, **options):
    clips, tasks, sources = tasks_of(corpus, out, **options)
    for task in tasks:
        pack_shard(task)
    write_manifests(clips, tasks, sources, out)
    return tasks


def test_a_file_in_several_manifests_is_packed_once(corpus):
    clips = ClipUnion([corpus / "late.csv", corpus / "all.csv"])
    assert len(clips) == 7
    assert [clips.clip(row)[0][-1] for row in range(7)] == list("4560123")
    assert clips.rows[0].tolist() == [0, 1, 2]
    assert clips.rows[1].tolist() == [3, 4, 5, 6, 0, 1, 2]


def test_webdataset_reads_every_clip(corpus, tmp_path):
    tasks = pack(corpus, tmp_path / "out")
    shards = [str(task.tar) for task in tasks]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [
        f"{row:09d}" for row in (0, 1, 3, 4, 6)
    ]
    for sample in samples:
        row = int(sample["__key__"])
        original, _ = soundfile.read(corpus / f"{row}.wav", dtype="int16")
        flac, rate = soundfile.read(io.BytesIO(sample["flac"]), dtype="int16")
        assert rate == 16000 and np.array_equal(flac, original)
        assert json.loads(sample["json"]) == {
            "id": f"odd/id.{row}",
            "seconds": len(original) / 16000,
            "labels": ["/m/a", "/m/b"][: row % 3],
        }


def test_index_points_at_the_members(corpus, tmp_path):
    for task in pack(corpus, tmp_path / "out"):
        index = json.loads(task.index.read_text())
        with tarfile.open(task.tar) as tar:
            members = [m for m in tar.getmembers() if m.name.endswith(".flac")]
        assert [(m.offset_data, m.size) for m in members] == [
            (offset, size) for _, offset, size, _, _ in index["clips"]
        ]


def test_manifests_hold_what_could_be_packed(corpus, tmp_path):
    pack(corpus, tmp_path / "out")
    for name, rows in (("all", (0, 1, 3, 4, 6)), ("late", (4, 6))):
        lines = (tmp_path / "out" / f"{name}.csv").read_text().splitlines()[1:]
        assert len(lines) == len(rows)
        for line, row in zip(lines, rows, strict=True):
            clip, seconds, wav, labels = line.split(",")
            assert clip == f"odd/id.{row}" and labels == ";".join(
                ["/m/a", "/m/b"][: row % 3]
            )
            assert float(seconds) == pytest.approx((3000 + 100 * row) / 16000, abs=1e-4)
            assert wav.startswith(f"$data_root/shard-{row // 3:06d}.tar::")
    skipped = (tmp_path / "out" / "skipped.csv").read_text()
    assert 'id.2,$data_root/2.wav,,"unreadable: ' in skipped
    assert "odd/id.5,$data_root/5.wav,,missing" in skipped
    assert (tmp_path / "out" / "labels.csv").read_text().endswith("0,/m/a,A\n")


def test_the_same_clips_make_the_same_bytes(corpus, tmp_path):
    one, other = (pack(corpus, tmp_path / name) for name in ("one", "other"))
    for here, there in zip(one, other, strict=True):
        assert here.tar.read_bytes() == there.tar.read_bytes()
        assert here.index.read_bytes() == there.index.read_bytes()


def test_a_shard_is_packed_when_it_is_complete(corpus, tmp_path):
    _, tasks, _ = tasks_of(corpus, tmp_path / "out")
    assert missing_shards(tasks) == [0, 1, 2]
    pack_shard(tasks[1])
    assert [is_packed(task) for task in tasks] == [False, True, False]
    whole = tasks[1].tar.read_bytes()
    tasks[1].tar.write_bytes(whole[:-512])  # the disk lost something
    assert not is_packed(tasks[1])
    pack_shard(tasks[1])
    assert tasks[1].tar.read_bytes() == whole
    tasks[1].index.unlink()  # killed between the two
    assert not is_packed(tasks[1])
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".tar"}


@pytest.mark.parametrize(
    "options", [{"size": 2}, {"seconds": 0.1}, {"names": ("late", "all")}], ids=str
)
def test_shards_of_other_clips_are_not_replaced(corpus, tmp_path, options):
    [first, *_] = pack(corpus, tmp_path / "out")
    before = first.tar.read_bytes()
    _, [other, *_], _ = tasks_of(corpus, tmp_path / "out", **options)
    with pytest.raises(ManifestError, match="shard-000000.tar: "):
        is_packed(other)
    assert first.tar.read_bytes() == before


def test_folder_without_the_recordings_is_refused(corpus, tmp_path):
    clips, _, _ = tasks_of(corpus, tmp_path / "out")
    [task, *_] = shard_tasks(clips, tmp_path / "out", "/nowhere", 3, None)
    with pytest.raises(ManifestError, match="shard-000000.tar: .* 3 .*missing"):
        pack_shard(task)
    assert not any((tmp_path / "out").iterdir())


def test_corrupt_shards_are_found(corpus, tmp_path):
    tasks = pack(corpus, tmp_path / "out")
    assert list(corrupt_shards(tmp_path / "out")) == []
    data = bytearray(tasks[0].tar.read_bytes())
    data[2000] ^= 1
    tasks[0].tar.write_bytes(data)
    tasks[1].tar.unlink()
    tasks[2].index.write_text("{")
    found = list(corrupt_shards(tmp_path / "out"))
    assert [line.rpartition("/")[2].split(": ")[0] for line in found] == [
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.json",
    ]
    with pytest.raises(ManifestError, match=re.escape(str(tmp_path))):
        list(corrupt_shards(tmp_path))


def test_flac_is_rounded_to_the_nearest_step():
    wav = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 0.4
    read, _ = soundfile.read(io.BytesIO(to_flac(wav)), dtype="float32")
    inside = wav.clamp(-1, 1 - 2**-15)
    assert (torch.from_numpy(read) - inside).abs().max() <= 2**-16
    assert (wav.abs() > 1).any()


def test_clips_are_truncated_as_when_they_are_read(tmp_path):
    time = np.arange(44100) / 44100
    soundfile.write(tmp_path / "0.wav", 0.5 * np.sin(900 * time), 44100)
    write_manifest(tmp_path / "all.csv", [ManifestRow("0", 1.0, "0.wav")])
    [task] = pack(tmp_path, tmp_path / "out", names=["all"], seconds=0.5)
    with tarfile.open(task.tar) as tar:
        flac = tar.extractfile("000000000.flac").read()
    read, _ = soundfile.read(io.BytesIO(flac), dtype="float32")
    expected = read_audio(tmp_path / "0.wav", max_seconds=0.5)
    assert len(read) == 8000
    assert np.abs(read - expected.numpy()).max() <= 2**-16


def test_a_shard_is_packed_again_when_a_missing_clip_appears(corpus, tmp_path):
    tasks = pack(corpus, tmp_path / "out")
    assert not missing_shards(tasks)
    (corpus / "2.wav").unlink()  # unreadable before, and still
    assert not missing_shards(tasks)
    soundfile.write(corpus / "5.wav", np.zeros(3000), 16000)
    assert missing_shards(tasks) == [1]
    pack(corpus, tmp_path / "out")
    assert not missing_shards(tasks)
    assert len((tmp_path / "out" / "all.csv").read_text().splitlines()) == 1 + 6
