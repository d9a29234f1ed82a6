"""Another audio is noticed, another place of the same is not."""

import os
import shutil

import numpy as np
import pytest

from eat.data import audio_fingerprint as fingerprinting
from eat.data.audio_fingerprint import PIECE, audio_fingerprint
from eat.data.dataset import audio_dataset
from eat.data.manifest import ManifestRow, write_manifest
from eat.data.shards import Address


@pytest.fixture
def corpus(tmp_path):
    """Eight files of different sizes, some longer than what is read of them."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.wav").write_bytes(os.urandom(PIECE * number + 100))
    return folder


def clips_of(folder, wavs=None):
    names = wavs or [f"{number}.wav" for number in range(8)]
    rows = [ManifestRow(str(number), 1.0, wav) for number, wav in enumerate(names)]
    write_manifest(folder.parent / "manifest.csv", rows)
    return audio_dataset(folder.parent / "manifest.csv", folder, None, 1.0)


def of(folder):
    return audio_fingerprint(clips_of(folder))


def test_place_and_time_do_not_count(corpus):
    before = of(corpus)
    assert before["files missing"] == 0
    moved = corpus.with_name("moved")
    shutil.copytree(corpus, moved, copy_function=shutil.copyfile)
    shutil.rmtree(corpus)
    assert of(moved) == before


@pytest.mark.parametrize("number", [0, 3, 7])
@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_changed_byte_counts(corpus, number, place):
    before = of(corpus)
    path = corpus / f"{number}.wav"
    content = bytearray(path.read_bytes())
    content[{"start": 0, "middle": len(content) // 2, "end": -1}[place]] ^= 1
    path.write_bytes(content)
    assert of(corpus)["SHA-256"] != before["SHA-256"]


def test_size_and_order_and_missing_files_count(corpus):
    found = [of(corpus)]
    with open(corpus / "7.wav", "r+b") as file:  # what is read of it stays zero
        file.truncate(0)
        file.truncate(10**6)
    found.append(of(corpus))
    with open(corpus / "7.wav", "r+b") as file:
        file.truncate(10**6 + 1)
    found.append(of(corpus))
    (corpus / "1.wav").rename(corpus / "x")
    found.append(of(corpus))
    assert found[-1]["files missing"] == 1
    (corpus / "0.wav").rename(corpus / "1.wav")
    (corpus / "x").rename(corpus / "0.wav")
    found.append(of(corpus))
    assert len({item["SHA-256"] for item in found}) == len(found)


def test_subset_is_that_of_its_clips(corpus):
    whole = clips_of(corpus)
    part = whole.subset(np.array([2, 5]))
    before = audio_fingerprint(part)
    (corpus / "3.wav").write_bytes(b"")
    assert audio_fingerprint(part) == before
    (corpus / "5.wav").write_bytes(b"")
    assert audio_fingerprint(part) != before


def test_of_many_files_evenly_spaced_ones_are_read(corpus, monkeypatch):
    monkeypatch.setattr(fingerprinting, "MAX_FILES", 3)
    before = of(corpus)
    (corpus / "1.wav").write_bytes(b"")
    assert of(corpus) == before
    for name in ("0.wav", "3.wav", "7.wav"):
        (corpus / name).write_bytes(b"")
        changed = of(corpus)
        assert changed != before
        before = changed


def test_clips_in_shards_count_by_their_checksum(corpus):
    def of_shards(folder, crc32):
        address = str(Address(f"{folder}/a.tar", 512, 100, crc32))
        return audio_fingerprint(clips_of(corpus, [address]))

    assert of_shards("/a", 1) == of_shards("/b", 1) != of_shards("/a", 2)


def test_pipe_in_place_of_a_file_is_not_waited_for(corpus):
    (corpus / "1.wav").unlink()
    os.mkfifo(corpus / "1.wav")
    assert of(corpus)["files missing"] == 1
