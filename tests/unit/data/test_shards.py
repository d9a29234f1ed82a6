"""Clips are read from shards as from files."""

import errno
import os

import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from eat.audio.io import read_audio
from eat.data.dataset import audio_dataset, collate
from eat.data.manifest import ManifestRow, write_manifest
from eat.data.samplers import WeightedSampler
from eat.data.shard_writer import ClipUnion, pack_shard, shard_tasks, write_manifests
from eat.data.shards import Address, parse_address, read_clip
from eat.errors import AudioError, AudioNotFoundError

CLIPS = 12


@pytest.fixture
def folders(tmp_path):
    """Twelve clips in 16-bit files, and the same clips in three shards."""
    generator = torch.Generator().manual_seed(0)
    files, shards = tmp_path / "files", tmp_path / "shards"
    files.mkdir()
    shards.mkdir()
    for i in range(CLIPS):
        wav = torch.randn(2000 + 10 * i, generator=generator) * 0.1
        soundfile.write(files / f"{i}.wav", wav.numpy(), 16000, "PCM_16")
    rows = [ManifestRow(str(i), 0.1, f"{i}.wav", ("/m/a",)) for i in range(CLIPS)]
    write_manifest(files / "all.csv", rows)
    clips = ClipUnion([files / "all.csv"])
    tasks = list(shard_tasks(clips, shards, str(files), 4, None))
    for task in tasks:
        pack_shard(task)
    write_manifests(clips, tasks, [files / "all.csv"], shards)
    return files, shards


def dataset(folder, **options):
    return audio_dataset(folder / "all.csv", folder, None, 10, **options)


def address_of(data, index):
    path = data.manifest.wavs[index].replace("$data_root", data.data_root)
    return parse_address(path)


def corrupt(address, at=100):
    with open(address.shard, "rb+") as file:
        file.seek(address.offset + at)
        byte = file.read(1)[0]
        file.seek(address.offset + at)
        file.write(bytes([byte ^ 1]))


def test_an_address_is_parsed_from_its_text():
    address = Address("/data/shard-000012.tar", 1536, 60814, 0x0DED418E)
    assert str(address) == "/data/shard-000012.tar::1536+60814:0ded418e"
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "path", ["a.wav", "a.tar::b.wav", "x.tar::1+2:0ded418e.wav", "a.tar", "a::1+2:0000"]
)
def test_other_paths_are_not_addresses(path):
    assert parse_address(path) is None


@pytest.mark.parametrize("workers", [0, 2])
def test_waveforms_are_those_of_the_files(folders, workers):
    files, shards = map(dataset, folders)
    order = WeightedSampler(torch.arange(1.0, CLIPS + 1), 8, 8, seed=1)
    options = {"batch_size": 3, "sampler": order, "collate_fn": collate}
    pairs = zip(
        DataLoader(files, **options),
        DataLoader(shards, num_workers=workers, **options),
        strict=True,
    )
    for ours, theirs in pairs:
        assert ours.ids == theirs.ids and torch.equal(ours.wav, theirs.wav)


def test_a_clip_is_truncated_and_resampled_as_a_file(folders):
    files, shards = map(dataset, folders)
    path = str(address_of(shards, 7))
    expected = read_audio(files.data_root + "/7.wav", 8000, 0.05)
    assert torch.equal(read_clip(path, 8000, 0.05), expected)


def test_a_corrupt_clip_is_an_error_and_the_others_are_read(folders):
    shards = dataset(folders[1])
    corrupt(address_of(shards, 5))
    with pytest.raises(AudioError, match="shard-000001.tar::"):
        shards[5]
    assert len(shards[4]["sig"]) == 2040 and len(shards[6]["sig"]) == 2060


def test_the_substitute_of_a_corrupt_clip_is_always_the_same(folders):
    shards = dataset(folders[1], replace=True)
    corrupt(address_of(shards, 5))
    item = shards[5]
    [(clip, reason)] = item["failures"]
    assert clip == "5" and "shard-000001.tar::" in reason and item["id"] != "5"
    assert shards[5]["id"] == item["id"]


def test_truncated_and_missing_shards(folders):
    shards = dataset(folders[1])
    address = address_of(shards, 3)
    with open(address.shard, "rb+") as file:
        file.truncate(address.offset + address.size - 1)
    with pytest.raises(AudioError, match="shard-000000.tar::"):
        shards[3]
    (folders[1] / "shard-000002.tar").unlink()
    with pytest.raises(AudioNotFoundError, match="shard-000002.tar::"):
        shards[9]


def test_bytes_that_are_not_audio(folders, tmp_path):
    (tmp_path / "x.tar").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"x.tar::0\+8:"):
        read_clip(f"{tmp_path}/x.tar::0+8:e4bd6043")


def test_a_shard_replaced_on_network_storage_is_opened_again(folders, monkeypatch):
    shards, pread = dataset(folders[1]), os.pread
    expected, calls = shards[5]["sig"], []

    def stale_once(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        return pread(*arguments)

    monkeypatch.setattr(os, "pread", stale_once)
    assert torch.equal(shards[5]["sig"], expected) and len(calls) == 2
