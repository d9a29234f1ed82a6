"""The official EAT manifests: tsv, lbl and the list of classes."""

import csv
import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat.data.manifest import read_labels
from eat.errors import ManifestError

sys.path.append(str(Path(__file__).parents[2] / "recipes" / "AudioSet"))
prepare = importlib.import_module("audioset_prepare")
tsv = importlib.import_module("audioset_tsv")

# As inference/labels.csv there: no line of column names.
LABELS = '0,/m/1,"Speech"\n1,/m/2,"Dog, bark"\n'


def write_wav(path, samples=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(samples), 32000)


def write_tsv(path, root, names):
    lines = [str(root), *(f"{name}\t320000" for name in names)]
    path.write_text("\n".join(lines) + "\n")


def write_lbl(path, labels):
    path.write_text("".join(f"{clip}\t{text}\n" for clip, text in labels.items()))


@pytest.fixture
def audio(tmp_path):
    """Audio outside of the folder with the manifests."""
    folder = tmp_path / "audio"
    for name in ("train/Yaaa.wav", "train/Ybbb.wav", "eval/Yccc.wav", "eval/Yddd.wav"):
        write_wav(folder / name)
    write_wav(folder / "train" / "Yshort.wav", 9999)
    return folder


@pytest.fixture
def data(tmp_path, audio):
    folder = tmp_path / "setting"
    folder.mkdir()
    names = [f"Y{stem}.wav" for stem in ("aaa", "bbb", "gone", "short")]
    write_tsv(folder / "train.tsv", audio / "train", names)
    labels = {"Yaaa": "/m/1,/m/2", "Ybbb": "/m/2", "Ygone": "/m/1", "Yshort": "/m/1"}
    write_lbl(folder / "train.lbl", labels)
    write_tsv(folder / "eval.tsv", audio, ["eval/Yccc.wav", "eval/Yddd.wav"])
    write_lbl(folder / "eval.lbl", {"Yccc": "/m/1", "Yddd": "/m/7"})
    (folder / "label_descriptors.csv").write_text(LABELS)
    return folder


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_manifests_hold_absolute_paths_outside_the_data_folder(data, audio, tmp_path):
    save = tmp_path / "save"
    prepare.prepare_audioset(data, save)
    rows = read_csv(save / "balanced_train.csv")
    assert rows[0] == {
        "ID": "Yaaa",
        "duration": "0.5000",
        "wav": f"{audio}/train/Yaaa.wav",
        "labels": "/m/1;/m/2",
    }
    assert [row["ID"] for row in rows] == ["Yaaa", "Ybbb"]
    assert read_csv(save / "pretrain.csv") == rows
    assert [row["wav"] for row in read_csv(save / "eval.csv")] == [
        f"{audio}/eval/Yccc.wav"
    ]
    assert read_labels(save / "labels.csv") == read_labels(
        data / "label_descriptors.csv"
    )
    assert (save / "labels.csv").read_text().startswith("index,mid,display_name\n0,")


def test_skipped_clips_have_their_reason(data, tmp_path):
    prepare.prepare_audioset(data, tmp_path / "save")
    rows = read_csv(tmp_path / "save" / "skipped.csv")
    assert [(row["id"], row["subset"], row["reason"]) for row in rows] == [
        ("Ygone", "balanced_train", "missing"),
        ("Yshort", "balanced_train", "too short: 9999 samples, 10000 needed"),
        ("Yddd", "eval", "label not in label_descriptors.csv: /m/7"),
    ]


@pytest.mark.parametrize("root", ["..", "../audio", "audio"])
def test_a_relative_root_starts_at_the_data_folder(data, audio, tmp_path, root):
    if root == "audio":
        shutil.move(audio, data / "audio")
    prefix = "audio/" if root == ".." else ""
    write_tsv(data / "eval.tsv", root, [f"{prefix}eval/Yccc.wav"])
    prepare.prepare_audioset(data, tmp_path / "save")
    [row] = read_csv(tmp_path / "save" / "eval.csv")
    inside = root == "audio"
    expected = "$data_root/audio" if inside else str(audio)
    assert row["wav"] == f"{expected}/eval/Yccc.wav"


def test_clips_of_a_root_that_is_gone_are_found_in_the_data_folder(
    data, audio, tmp_path
):
    shutil.move(audio, data / "somewhere")
    prepare.prepare_audioset(data, tmp_path / "save")
    rows = read_csv(tmp_path / "save" / "balanced_train.csv")
    assert rows[1]["wav"] == "$data_root/somewhere/train/Ybbb.wav"
    summary = json.loads((tmp_path / "save" / "summary.json").read_text())
    assert summary["subsets"]["balanced_train"]["missing"] == 1


def test_pretraining_needs_no_labels(data, tmp_path):
    (data / "train.lbl").unlink()
    (data / "eval.lbl").unlink()  # an eval.tsv without it is skipped
    (data / "eval.tsv").rename(data / "valid.tsv")
    prepare.prepare_audioset(data, tmp_path / "save")
    rows = read_csv(tmp_path / "save" / "pretrain.csv")
    assert [(row["ID"], row["labels"]) for row in rows] == [("Yaaa", ""), ("Ybbb", "")]
    manifests = ("balanced_train.csv", "unbalanced_train.csv", "eval.csv")
    assert not any((tmp_path / "save" / name).exists() for name in manifests)
    skipped = read_csv(tmp_path / "save" / "skipped.csv")
    assert [row["subset"] for row in skipped] == ["pretrain", "pretrain"]


def test_valid_is_read_as_eval(data, tmp_path):
    (data / "eval.tsv").rename(data / "valid.tsv")
    (data / "eval.lbl").rename(data / "valid.lbl")
    prepare.prepare_audioset(data, tmp_path / "save")
    assert [row["ID"] for row in read_csv(tmp_path / "save" / "eval.csv")] == ["Yccc"]


def test_a_long_training_list_is_not_the_balanced_one(data, tmp_path, monkeypatch):
    monkeypatch.setattr(tsv, "MOST_BALANCED_CLIPS", 3)
    prepare.prepare_audioset(data, tmp_path / "save")
    assert len(read_csv(tmp_path / "save" / "unbalanced_train.csv")) == 2
    assert not (tmp_path / "save" / "balanced_train.csv").exists()


def test_a_clip_without_a_line_in_the_lbl_is_skipped(data, tmp_path):
    write_lbl(data / "train.lbl", {"Ybbb": "/m/2", "gone": "/m/1", "short": "/m/1"})
    prepare.prepare_audioset(data, tmp_path / "save")
    [row] = read_csv(tmp_path / "save" / "balanced_train.csv")
    assert (row["ID"], row["labels"]) == ("Ybbb", "/m/2")
    skipped = {r["id"]: r["reason"] for r in read_csv(tmp_path / "save/skipped.csv")}
    assert skipped["Yaaa"] == "no line in train.lbl"


def test_ids_of_the_lbl_may_lack_the_y(data, tmp_path):
    write_lbl(data / "eval.lbl", {"ddd": "/m/1", "ccc": "/m/2"})
    prepare.prepare_audioset(data, tmp_path / "save")
    rows = read_csv(tmp_path / "save" / "eval.csv")
    assert [(row["ID"], row["labels"]) for row in rows] == [
        ("ccc", "/m/2"),
        ("ddd", "/m/1"),
    ]


def test_other_ids_are_paired_line_by_line(data, tmp_path):
    write_lbl(data / "eval.lbl", {"0": "/m/1", "1": "/m/2"})
    prepare.prepare_audioset(data, tmp_path / "save")
    rows = read_csv(tmp_path / "save" / "eval.csv")
    assert [(row["wav"][-8:], row["labels"]) for row in rows] == [
        ("Yccc.wav", "/m/1"),
        ("Yddd.wav", "/m/2"),
    ]


def test_a_second_run_has_nothing_to_do_until_audio_comes(data, audio, tmp_path):
    save = tmp_path / "save"
    prepare.prepare_audioset(data, save)
    before = (save / "summary.json").stat().st_mtime_ns
    prepare.prepare_audioset(data, save)
    assert (save / "summary.json").stat().st_mtime_ns == before
    write_wav(audio / "train" / "Ygone.wav")
    prepare.prepare_audioset(data, save)
    assert len(read_csv(save / "balanced_train.csv")) == 3


def root_gone(data):
    write_tsv(data / "train.tsv", "/no/such/root", ["Yaaa.wav"])


def no_root(data):
    (data / "train.tsv").write_text("Yaaa.wav\t320000\n")


def empty_tsv(data):
    (data / "train.tsv").write_text("")


def cut_tsv(data):
    with open(data / "train.tsv", "a") as file:
        file.write("Yeee.wav\n")


def hdf5(data):
    write_tsv(data / "train.tsv", data, ["10.h5/Yaaa.wav"])


def cut_lbl(data):
    with open(data / "eval.lbl", "a") as file:
        file.write("Yeee\n")


def other_lbl(data):
    write_lbl(data / "eval.lbl", {"x": "/m/1"})


def no_classes(data):
    (data / "label_descriptors.csv").unlink()


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (root_gone, "train.tsv: .*'/no/such/root'"),
        (no_root, "train.tsv: line 1 .*'Yaaa.wav.*320000'"),
        (empty_tsv, "train.tsv: line 1 .*''"),
        (cut_tsv, "train.tsv: line 6 .*'Yeee.wav'"),
        (hdf5, "train.tsv: line 2 .*HDF5"),
        (cut_lbl, "eval.lbl: line 3 .*'Yeee'"),
        (other_lbl, "eval.tsv: .*eval.lbl"),
        (no_classes, "class_labels_indices.csv: "),
    ],
)
def test_malformed_manifests(data, tmp_path, spoil, fault):
    spoil(data)
    with pytest.raises(ManifestError, match=f"{tmp_path}.*{fault}"):
        prepare.prepare_audioset(data, tmp_path / "save")


def test_manifests_saved_by_windows_programs(data, audio, tmp_path):
    prepare.prepare_audioset(data, tmp_path / "expected")
    for path in (*data.glob("*.tsv"), *data.glob("*.lbl")):
        text = path.read_text().replace(",", " , ")
        first, _, rest = text.partition("\n")
        if path.suffix == ".tsv":
            rest = rest.replace("/", "\\")
        content = f"{first}\n\n{rest}".replace("\n", "\r\n").encode("utf-8-sig")
        path.write_bytes(content)
    prepare.prepare_audioset(data, tmp_path / "save")
    for name in ("balanced_train.csv", "eval.csv", "pretrain.csv", "skipped.csv"):
        found, expected = (tmp_path / folder / name for folder in ("save", "expected"))
        assert found.read_bytes() == expected.read_bytes()


def test_contradictory_labels(data, tmp_path):
    with open(data / "train.lbl", "a") as file:
        file.write("Ybbb\t/m/2\nYaaa\t/m/1\n")
    with pytest.raises(ManifestError, match="train.lbl: line 6: 'Yaaa'"):
        prepare.prepare_audioset(data, tmp_path / "save")


def test_other_files_of_evaluation_clips_are_not_trained_on(data, audio, tmp_path):
    """The evaluation list names the video, its own file is gone."""
    names = ["Yabcdefghijk_30.000.wav", "Yaaa.wav"]
    write_wav(audio / "train" / names[0])
    write_tsv(data / "train.tsv", audio / "train", names)
    (data / "train.lbl").unlink()
    write_tsv(data / "eval.tsv", audio, ["eval/abcdefghijk.wav", "eval/Yccc.wav"])
    write_lbl(data / "eval.lbl", {"abcdefghijk": "/m/1", "Yccc": "/m/1"})
    prepare.prepare_audioset(data, tmp_path / "save")
    rows = read_csv(tmp_path / "save" / "pretrain.csv")
    assert [row["ID"] for row in rows] == ["Yaaa"]
