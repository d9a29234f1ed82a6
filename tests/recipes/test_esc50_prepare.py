import csv
import importlib.util
import json
import logging
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat.data.dataset import audio_dataset
from eat.data.manifest import read_labels
from eat.errors import ManifestError
from mini_corpora.bank import load_bank
from mini_corpora.esc50 import ESC50Sizes, write_esc50

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "ESC50" / "esc50_prepare.py"
spec = importlib.util.spec_from_file_location("esc50_prepare", SCRIPT)
prepare = importlib.util.module_from_spec(spec)
sys.modules["esc50_prepare"] = prepare
spec.loader.exec_module(prepare)

HEADER = "filename,fold,target,category,esc10,src_file,take\n"
CATEGORIES = {0: "dog", 3: "crying_baby"}  # targets need not be without gaps
RATE = 44100
MANIFESTS = ["all"] + [f"{part}_{k}" for part in ("train", "test") for k in range(1, 6)]


def write_wav(path, samples=RATE // 10):
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, samples)
    soundfile.write(path, wav, RATE, subtype="PCM_16")


def write_table(data, clips):
    """Clips are tuples of fold, number, take, target and category."""
    (data / "meta").mkdir(parents=True, exist_ok=True)
    lines = [
        f"{fold}-{number}-{take}-{target}.wav,{fold},{target},{name},False,{number},{take}\n"
        for fold, number, take, target, name in clips
    ]
    (data / "meta" / "esc50.csv").write_text(HEADER + "".join(lines))
    return [f"{c[0]}-{c[1]}-{c[2]}-{c[3]}.wav" for c in clips]


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def ids(path):
    return [row["ID"] for row in read_csv(path)]


def summary(save):
    return json.loads((save / "summary.json").read_text())


def counts(save):
    keys = ("listed", "used", "used_in_paper", "recordings")
    subsets = summary(save)["subsets"]
    return {name: tuple(map(subset.get, keys)) for name, subset in subsets.items()}


@pytest.fixture
def data(tmp_path):
    """Two classes, of each a clip and a second take of it in each fold."""
    data = tmp_path / "ESC-50-master"
    clips = [
        (fold, 100 * fold + target, take, target, name)
        for fold in range(1, 6)
        for target, name in CATEGORIES.items()
        for take in "AB"
    ]
    for name in write_table(data, clips):
        write_wav(data / "audio" / name)
    return data


@pytest.fixture
def faulty(data):
    """Each kind of unusable file once."""
    (data / "audio" / "1-100-A-0.wav").unlink()
    write_wav(data / "audio" / "2-200-A-0.wav", 1102)
    (data / "audio" / "3-300-A-0.wav").write_text("<html>")
    cut = data / "audio" / "3-300-B-0.wav"
    cut.write_bytes(cut.read_bytes()[:3000])
    (data / "audio" / "4-400-A-0.wav").write_bytes(b"")
    write_wav(data / "audio" / "4-999-A-0.wav")  # not in the table
    (data / "audio" / ".DS_Store").touch()
    return data


def check_contract(data_folder, save):
    """Every row of every manifest loads, with the one label its file name says."""
    labels = read_labels(save / "labels.csv")
    rows = {
        row["filename"]: row for row in read_csv(next(data_folder.rglob("*50.csv")))
    }
    for name in MANIFESTS:
        dataset = audio_dataset(save / f"{name}.csv", data_folder, labels, 10.0)
        for item in (dataset[index] for index in range(len(dataset))):
            assert item["sig"].ndim == 1 and item["sig"].isfinite().all()
            assert item["target"].sum() == 1
            label = labels.ids[item["target"].argmax()]
            assert label == rows[f"{item['id']}.wav"]["category"]


def test_each_fold_is_tested_once_and_trained_on_by_the_others(data, tmp_path):
    save = tmp_path / "new" / "save"
    prepare.prepare_esc50(data, save)
    everything = ids(save / "all.csv")
    assert len(set(everything)) == 20
    for fold in range(1, 6):
        test, train = ids(save / f"test_{fold}.csv"), ids(save / f"train_{fold}.csv")
        assert test == [id_ for id_ in everything if id_.startswith(f"{fold}-")]
        assert sorted(test + train) == sorted(everything)
    assert read_csv(save / "test_2.csv")[0] == {
        "ID": "2-200-A-0",
        "duration": "0.1000",
        "wav": "$data_root/audio/2-200-A-0.wav",
        "labels": "dog",
    }
    labels = read_labels(save / "labels.csv")
    assert labels.ids == ("dog", "crying_baby")
    assert labels.names == ("dog", "crying baby")


def test_a_true_clip_gives_five_seconds(data, tmp_path):
    write_wav(data / "audio" / "1-100-A-0.wav", 5 * RATE)
    prepare.prepare_esc50(data, tmp_path)
    labels = read_labels(tmp_path / "labels.csv")
    item = audio_dataset(tmp_path / "test_1.csv", data, labels, 10.0)[0]
    assert item["sig"].shape == (80000,)
    assert read_csv(tmp_path / "test_1.csv")[0]["duration"] == "5.0000"


@pytest.mark.parametrize("below", ["", "ESC-50-master"])
def test_every_row_loads_from_the_corpus_and_from_its_parent(faulty, tmp_path, below):
    data_folder = faulty.parent if below else faulty
    prepare.prepare_esc50(data_folder, tmp_path / "save")
    check_contract(data_folder, tmp_path / "save")


@pytest.mark.slow
def test_every_row_of_the_mini_corpus_loads(tmp_path):
    folder = tmp_path / "ESC-50-master"
    folder.mkdir()
    bank = load_bank(ROOT / "tools" / "bank")
    write_esc50(bank, folder, seed=0, sizes=ESC50Sizes(clips=1), workers=2)
    prepare.prepare_esc50(tmp_path, tmp_path / "save")
    assert len(ids(tmp_path / "save" / "all.csv")) == 50
    assert read_csv(tmp_path / "save" / "skipped.csv") == []
    check_contract(tmp_path, tmp_path / "save")


@pytest.mark.slow
def test_a_corpus_of_the_true_size_passes_without_a_warning(tmp_path, caplog):
    data = tmp_path / "ESC-50-master"
    clips = [
        (
            fold,
            1000 * fold + 10 * target + take // 2,
            "AB"[take % 2],
            target,
            f"c{target}",
        )
        for fold in range(1, 6)
        for target in range(50)
        for take in range(8)
    ]
    write_wav(tmp_path / "one.wav")
    (data / "audio").mkdir(parents=True)
    for name in write_table(data, clips):
        os.link(tmp_path / "one.wav", data / "audio" / name)
    with caplog.at_level(logging.WARNING):
        prepare.prepare_esc50(data, tmp_path / "save")
    assert caplog.messages == []
    assert counts(tmp_path / "save") == {
        f"fold{k}": (400, 400, 400, 200) for k in range(1, 6)
    }
    assert len(ids(tmp_path / "save" / "train_3.csv")) == 1600
    classes = Counter(r["labels"] for r in read_csv(tmp_path / "save" / "test_3.csv"))
    assert set(classes.values()) == {8} and len(classes) == 50


def test_a_small_corpus_passes_with_a_warning_per_count(data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        prepare.prepare_esc50(data, tmp_path)
    assert [re.findall(r"\b\d+\b", line) for line in caplog.messages] == [
        ["20", "50", "2000"],  # the 50 is from ESC-50
        ["4", "4", "4", "4", "4", "50", "400"],
        ["2", "10", "10", "50", "50", "40"],
    ]
    assert counts(tmp_path)["fold1"] == (4, 4, None, 2)


def test_unusable_missing_and_unlisted_files_are_named(faulty, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        prepare.prepare_esc50(faulty, tmp_path)
    skipped = {row["id"]: row for row in read_csv(tmp_path / "skipped.csv")}
    reasons = {
        "1-100-A-0": "missing",
        "2-200-A-0": "too short: 1102 samples, 1103 needed",
        "3-300-A-0": "unreadable: ",
        "3-300-B-0": "unreadable: ",
        "4-400-A-0": "unreadable: ",
        "4-999-A-0": "not in meta/esc50.csv",
    }
    assert skipped.keys() == reasons.keys()
    for id_, reason in reasons.items():
        assert skipped[id_]["reason"].startswith(reason)
        assert skipped[id_]["file"] == f"audio/{id_}.wav"
        subset = "" if id_ == "4-999-A-0" else f"fold{id_[0]}"
        assert skipped[id_]["subset"] == subset
        assert any(f"audio/{id_}.wav" in line for line in caplog.messages)
    assert counts(tmp_path)["fold3"] == (4, 2, None, 1)
    assert not reasons.keys() & set(ids(tmp_path / "all.csv"))


def test_a_recording_in_two_folds_is_a_warning(data, tmp_path, caplog):
    table = data / "meta" / "esc50.csv"
    table.write_text(table.read_text().replace("False,200,", "False,100,"))
    with caplog.at_level(logging.WARNING):
        prepare.prepare_esc50(data, tmp_path)
    assert caplog.messages[3].startswith("1 ") and "src_file 100" in caplog.messages[3]


@pytest.mark.parametrize("change", ["repair", "table", "delete", "result", "parent"])
def test_a_change_is_noticed(faulty, tmp_path, change):
    save = tmp_path / "save"
    prepare.prepare_esc50(faulty, save)
    before, data_folder, used = summary(save), faulty, 15
    table = faulty / "meta" / "esc50.csv"
    if change == "repair":  # in place
        shutil.copy(faulty / "audio" / "5-500-A-0.wav", faulty / "audio/3-300-A-0.wav")
        used = 16
    elif change == "table":
        table.write_text("".join(table.open().readlines()[:-1]))
        used = 14
    elif change == "delete":
        (faulty / "audio" / "5-500-A-0.wav").unlink()
        used = 14
    elif change == "result":
        (save / "test_5.csv").unlink()
    else:
        data_folder = faulty.parent
    prepare.prepare_esc50(data_folder, save)
    assert len(ids(save / "all.csv")) == used
    assert (save / "test_5.csv").exists()
    assert (summary(save) == before) == (change == "result")
    check_contract(data_folder, save)


def test_numbers_may_be_saved_as_floats(data, tmp_path):
    prepare.prepare_esc50(data, tmp_path / "expected")
    table = data / "meta" / "esc50.csv"
    table.write_text(re.sub(r",(\d),(\d),", r",\1.0,\2.0,", table.read_text()))
    prepare.prepare_esc50(data, tmp_path / "save")
    assert ids(tmp_path / "save" / "train_1.csv") == ids(
        tmp_path / "expected" / "train_1.csv"
    )


def append(line):
    def spoil(data):
        with open(data / "meta" / "esc50.csv", "a") as file:
            file.write(f"{line}\n")

    return spoil


def no_corpus(data):
    shutil.rmtree(data)


def no_table(data):
    (data / "meta" / "esc50.csv").unlink()


def only_zip(data):
    no_table(data)
    (data / "ESC-50-master.zip").touch()


def no_column(data):
    table = data / "meta" / "esc50.csv"
    table.write_text(table.read_text().replace("src_file", "source"))


def no_rows(data):
    (data / "meta" / "esc50.csv").write_text(HEADER)


def no_text(data):
    (data / "meta" / "esc50.csv").write_bytes(b"\xff\xfe\x00")


def no_audio(data):
    shutil.rmtree(data / "audio")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (no_corpus, "ESC-50-master: "),
        (no_table, "ESC-50-master: .*meta/esc50.csv"),
        (only_zip, "ESC-50-master.zip: .*unzip -q "),
        (no_column, "esc50.csv: line 1: .*src_file"),
        (no_rows, "esc50.csv: no clips"),
        (no_text, "esc50.csv: line 1: "),
        (no_audio, "audio: .*20 "),
        (append("1-7-A-0.wav,1,0"), "esc50.csv: line 22: "),
        (append("1-7-A-0.wav,2,0,dog,False,7,A"), "line 22: .*'2'.* '0'"),
        (append("1-7-A-0.wav,1,3,crying_baby,False,7,A"), "line 22: .*'3'"),
        (append("6-7-A-0.wav,6,0,dog,False,7,A"), "line 22: .*'6'"),
        (append("1-7-A-x.wav,1,x,dog,False,7,A"), "line 22: .*'x'"),
        (append("../7-A-0.wav,1,0,dog,False,7,A"), "line 22: '../7-A-0.wav'"),
        (append("1-100-A-0.wav,1,0,dog,False,100,A"), "line 22: '1-100-A-0.wav'"),
        (append("1-7-A-0.wav,1,0,cat,False,7,A"), "line 22: .*0.*'cat'"),
        (append("1-7-A-9.wav,1,9,dog,False,7,A"), "line 22: .*9.*'dog'"),
    ],
)
def test_a_malformed_corpus(data, tmp_path, spoil, fault):
    spoil(data)
    with pytest.raises(ManifestError, match=f"{tmp_path}.*{fault}"):
        prepare.prepare_esc50(data, tmp_path / "save")
    assert not list((tmp_path / "save").glob("*_*.csv"))
