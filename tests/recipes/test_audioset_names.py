"""Official lists with audio files of different names, depths and formats."""

import csv
import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat.data.dataset import audio_dataset
from eat.data.manifest import read_labels
from eat.errors import ManifestError

sys.path.append(str(Path(__file__).parents[2] / "recipes" / "AudioSet"))
prepare = importlib.import_module("audioset_prepare")
layouts = importlib.import_module("audioset_layouts")

LABELS = 'index,mid,display_name\n0,/m/1,"Speech"\n1,/m/2,"Dog, bark"\n'


def write_audio(path, samples=16000, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, samples)
    form = path.suffix[1:].upper()
    soundfile.write(path, wav, rate, format=form)


def write_corpus(data, files, listed=()):
    """Write eval clips under the given ids, their lists and the classes."""
    for name in files.values():
        write_audio(data / name, 48000 if "48" in name else 16000)
    rows = [f'{clip}, 30.000, 40.000, "/m/1,/m/2"\n' for clip in (*files, *listed)]
    (data / "eval_segments.csv").write_text("# YTID\n" + "".join(rows))
    (data / "class_labels_indices.csv").write_text(LABELS)


def wavs(save, name="eval"):
    with open(save / f"{name}.csv", newline="") as file:
        return {row["ID"]: row["wav"] for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("stem", "clip"),
    [
        ("abcdefghijk", "abcdefghijk"),
        ("Yabcdefghijk", "abcdefghijk"),
        ("abcdefghijk_30.000", "abcdefghijk"),
        ("abcdefghijk_30000", "abcdefghijk"),
        ("abcdefghijk_30", "abcdefghijk"),
        ("abcdefghijk_30.000_40.000", "abcdefghijk"),
        ("Yabcdefghijk_30000_40000", "abcdefghijk"),
        ("YbcdefghijK", "YbcdefghijK"),  # begins with Y itself
        ("YYbcdefghijK", "YbcdefghijK"),
        ("YbcdefghijK_5", "YbcdefghijK"),
        ("_bcdefgh_12", "_bcdefgh_12"),  # ends like a start
        ("_bcdefgh_12_30", "_bcdefgh_12"),
        ("Y_bcdefgh_12_30_40", "_bcdefgh_12"),
        ("-bcd_1_2_34", "-bcd_1_2_34"),
        ("Y-bcd_1_2_34_0.000", "-bcd_1_2_34"),
        ("abcdefghijk_x", None),
        ("abcdefghijk_1_2_3", None),
        ("bcdefghijk", None),
        ("", None),
    ],
)
def test_a_file_name_finds_its_clip(stem, clip):
    listed = {
        "abcdefghijk",
        "YbcdefghijK",
        "_bcdefgh_12",
        "-bcd_1_2_34",
    }
    assert layouts.clip_of(stem, listed) == clip


def test_names_depths_formats_and_rates_are_found(tmp_path):
    data = tmp_path / "data"
    deep = "audios/unbalanced_train_segments/unbalanced_train_segments_part00"
    files = {
        "aaaaaaaaaa1": "aaaaaaaaaa1.wav",
        "aaaaaaaaaa2": f"{deep}/Yaaaaaaaaaa2.wav",
        "aaaaaaaaaa3": "audio/aaaaaaaaaa3_30.000.FLAC",
        "aaaaaaaaaa4": "audio/eval/48k/aaaaaaaaaa4_30000.ogg",
        "aaaaaaaaaa5": "other/Yaaaaaaaaaa5_30_40.mp3",
    }
    write_corpus(data, files)
    prepare.prepare_audioset(data, tmp_path / "save")
    expected = {clip: f"$data_root/{name}" for clip, name in files.items()}
    assert wavs(tmp_path / "save") == expected
    labels = read_labels(tmp_path / "save" / "labels.csv")
    dataset = audio_dataset(tmp_path / "save" / "eval.csv", data, labels, 10.0)
    for index in range(len(dataset)):
        assert dataset[index]["sig"].std() > 0.2
        assert dataset[index]["target"].tolist() == [1, 1]


def test_lists_may_lie_in_a_metadata_folder(tmp_path):
    data = tmp_path / "data"
    write_corpus(data, {"aaaaaaaaaa1": "audios/eval_segments/Yaaaaaaaaaa1.wav"})
    (data / "metadata").mkdir()
    for name in ("eval_segments.csv", "class_labels_indices.csv"):
        (data / name).rename(data / "metadata" / name)
    prepare.prepare_audioset(data, tmp_path / "save")
    assert list(wavs(tmp_path / "save")) == ["aaaaaaaaaa1"]


def test_of_several_files_the_first_path_is_used(tmp_path):
    data = tmp_path / "data"
    write_corpus(data, {"aaaaaaaaaa1": "b/aaaaaaaaaa1.wav"})
    write_audio(data / "a" / "z" / "Yaaaaaaaaaa1_30.wav")
    write_audio(data / "aaaaaaaaaa1.flac")
    write_audio(data / "unlisted___.flac")
    prepare.prepare_audioset(data, tmp_path / "save")
    assert wavs(tmp_path / "save")["aaaaaaaaaa1"].endswith("a/z/Yaaaaaaaaaa1_30.wav")
    summary = json.loads((tmp_path / "save" / "summary.json").read_text())
    assert summary["files_left_aside"] == {"duplicates": 2, "unlisted": 1}


def test_links_are_followed_once(tmp_path):
    data = tmp_path / "data"
    write_corpus(data, {"aaaaaaaaaa1": "audio/aaaaaaaaaa1.wav"})
    write_audio(tmp_path / "elsewhere" / "aaaaaaaaaa2.wav")
    (data / "audio" / "linked").symlink_to(tmp_path / "elsewhere")
    (data / "audio" / "circle").symlink_to(data)
    assert layouts.count_audio(data, tmp_path / "save")["files"] == 2


def test_results_within_the_corpus_are_not_taken_for_it(tmp_path):
    write_corpus(tmp_path, {"aaaaaaaaaa1": "audio/aaaaaaaaaa1.wav"})
    write_audio(tmp_path / "RUN" / "manifests" / "aaaaaaaaaa1.wav")
    prepare.prepare_audioset(tmp_path, tmp_path / "RUN" / "manifests")
    summary = json.loads((tmp_path / "RUN/manifests/summary.json").read_text())
    assert summary["inputs"]["audio"]["files"] == 1
    assert summary["files_left_aside"] == {"duplicates": 0, "unlisted": 0}


def test_a_second_run_within_the_corpus_has_nothing_to_do(tmp_path, monkeypatch):
    write_corpus(tmp_path, {"aaaaaaaaaa1": "audio/aaaaaaaaaa1.wav"})
    prepare.prepare_audioset(tmp_path, tmp_path / "manifests")
    monkeypatch.setattr(prepare, "check_audio", None)
    (tmp_path / "RUN").mkdir()  # a change of the folder, not of the audio
    prepare.prepare_audioset(tmp_path, tmp_path / "manifests")


def test_an_interrupted_preparation_resumes(tmp_path, monkeypatch):
    checking = importlib.import_module("eat.data.audio_check")
    data, save = tmp_path / "data", tmp_path / "save"
    clips = [f"aaaaaaaaa{number}" for number in range(10, 40)]
    write_corpus(data, {clip: f"audio/{clip}.wav" for clip in clips})
    inspect, opened = checking.inspect_many, []

    def interrupted(paths):
        yield from inspect(paths[:20])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checking, "inspect_many", interrupted)
        prepare.prepare_audioset(data, save)
    assert [path.name for path in save.iterdir()] == ["checked.csv"]

    def spy(paths):
        opened.extend(paths)
        return inspect(paths)

    monkeypatch.setattr(checking, "inspect_many", spy)
    prepare.prepare_audioset(data, save)
    assert len(opened) == 10
    assert list(wavs(save)) == clips


def test_a_repaired_file_is_used_after_a_change(tmp_path):
    data, save = tmp_path / "data", tmp_path / "save"
    write_corpus(data, {"aaaaaaaaaa1": "a/aaaaaaaaaa1.wav", "b": "a/b.wav"})
    (data / "a" / "b.wav").write_bytes(b"")
    prepare.prepare_audioset(data, save)
    assert list(wavs(save)) == ["aaaaaaaaaa1"]
    (data / "a" / "b.wav").unlink()
    write_audio(data / "a" / "b.wav")
    os.utime(data / "a", (1, 1))
    prepare.prepare_audioset(data, save)
    assert list(wavs(save)) == ["aaaaaaaaaa1", "b"]


def test_a_list_that_is_not_text(tmp_path):
    write_corpus(tmp_path, {"aaaaaaaaaa1": "audio/aaaaaaaaaa1.wav"})
    (tmp_path / "eval_segments.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ManifestError, match="eval_segments.csv: "):
        prepare.prepare_audioset(tmp_path, tmp_path / "save")
