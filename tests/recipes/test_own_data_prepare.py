import csv
import json
import logging
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat.data.dataset import audio_dataset
from eat.data.manifest import read_labels
from eat.errors import ManifestError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "OwnData" / "own_data_prepare.py"
sys.path.append(str(SCRIPT.parent))
import own_data_prepare as prepare  # noqa: E402
from own_data_splits import Labeled, split_by_hash  # noqa: E402


def write(path, seconds=0.5, rate=16000, channels=1, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * rate), channels))
    soundfile.write(path, wav, rate, **options)


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ids(path):
    return {row["ID"] for row in read_csv(path)}


def skipped(save):
    return {row["file"]: row for row in read_csv(save / "skipped.csv")}


def summary(save):
    return json.loads((save / "summary.json").read_text())


def label(data, *lines, header="file,labels,split"):
    text = "".join(f"{line}\n" for line in (header, *lines))
    (data / "labels.csv").write_text(text, encoding="utf-8")


@pytest.fixture
def save(tmp_path):
    return tmp_path / "save"


@pytest.fixture
def data(tmp_path):
    """Two recordings of each of two classes, one of none, and their labels."""
    data = tmp_path / "data"
    for name in ("dog/1.wav", "dog/2.wav", "cat/1.wav", "cat/2.wav", "noise.flac"):
        write(data / name)
    label(
        data,
        "dog/1.wav,dog,train",
        "dog/2.wav,dog,eval",
        "cat/1.wav,cat,train",
        "cat/2.wav,cat;dog,eval",
    )
    return data


ODD = {
    "short.wav": {"seconds": 0.1, "rate": 8000, "subtype": "PCM_U8"},
    "two minutes.wav": {"seconds": 120, "rate": 8000},
    "studio/96 kHz.WAV": {"rate": 96000, "subtype": "PCM_24", "channels": 2},
    "studio/six, of them.wav": {"rate": 48000, "channels": 6, "subtype": "FLOAT"},
    "studio/six, of them.flac": {"rate": 44100, "subtype": "PCM_24"},
    'a "quoted" name.Ogg': {"rate": 22050, "channels": 2},
    "música/señal – 音.mp3": {"rate": 32000, "channels": 2},
    "v1.2/take.final.wav": {"rate": 11025, "subtype": "DOUBLE"},
    "it's 100% & more;#1.mp3": {"rate": 16000},
    "exact.wav": {"seconds": 400 / 16000},
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder in which every file is unusual, and some are unusable."""
    data = tmp_path_factory.mktemp("odd")
    for name, options in ODD.items():
        write(data / name, **options)
    write(data / "tiny.wav", seconds=399 / 16000)
    (data / "text.wav").write_text("<html>")
    (data / "empty.wav").touch()
    write(data / "cut.wav")
    (data / "cut.wav").write_bytes((data / "cut.wav").read_bytes()[:9000])
    write(data / "costs $5.wav")
    write(data / "line\nbreak.wav")
    write(data / ".hidden.wav")
    write(data / "._short.wav")
    write(data / ".trash" / "old.wav")
    (data / "notes.txt").write_text("hello")
    (data / "round").symlink_to(data)
    (data / "nowhere.wav").symlink_to(data / "gone.wav")
    with open(os.fsencode(data) + b"/latin\xe9.wav", "wb") as file:
        file.write((data / "exact.wav").read_bytes())
    return data


def test_unusual_files_are_used_or_skipped_with_a_reason(odd, save, caplog):
    with caplog.at_level(logging.INFO):
        prepare.prepare_own_data(odd, save)
    assert ids(save / "pretrain.csv") == {
        "short",
        "two minutes",
        "studio/96 kHz",
        "studio/six, of them.wav",
        "studio/six, of them.flac",
        'a "quoted" name',
        "música/señal – 音",
        "v1.2/take.final",
        "it's 100% & more;#1",
        "exact",
    }
    reasons = {name: row["reason"] for name, row in skipped(save).items()}
    assert {row["subset"] for row in skipped(save).values()} == {"pretrain"}
    assert reasons.pop("tiny.wav") == "too short: 399 samples, 400 needed"
    for name in ("text.wav", "empty.wav", "cut.wav"):
        assert reasons.pop(name).startswith("unreadable: ")
    assert reasons.pop("nowhere.wav") == "missing"
    for name in ("costs $5.wav", "line\nbreak.wav", "latin\\udce9.wav"):
        assert reasons.pop(name).startswith("invalid name: ")
    assert not reasons
    counts = summary(save)["subsets"]["pretrain"]
    assert (counts["listed"], counts["found"], counts["missing"]) == (18, 17, 1)
    assert (counts["skipped"], counts["used"]) == (7, 10)
    assert counts["used_in_paper"] is None
    assert counts["hours"] == pytest.approx(124 / 3600, abs=1e-3)
    assert summary(save)["longer_than_used"] == 1
    assert "1 .txt" in caplog.text
    assert re.search(r"1 of 10 .* 10.26 s", caplog.text)
    assert sorted(path.name for path in save.iterdir()) == [
        "checked.csv",
        "pretrain.csv",
        "skipped.csv",
        "summary.json",
    ]


def test_every_row_loads_as_a_dataset(odd, save):
    prepare.prepare_own_data(odd, save)
    dataset = audio_dataset(save / "pretrain.csv", odd, None, max_seconds=10.26)
    lengths = {item["id"]: len(item["sig"]) for item in dataset}
    assert len(lengths) == len(ODD)
    assert lengths.pop("short") == 1600
    assert lengths.pop("exact") == 400
    assert lengths.pop("two minutes") == 164160  # 10.26 s
    # An MP3 ends with a whole frame.
    assert all(abs(length - 8000) < 1200 for length in lengths.values())


def test_labels_make_manifests_for_fine_tuning(data, save):
    prepare.prepare_own_data(data, save)
    assert ids(save / "pretrain.csv") == {"dog/1", "cat/1", "noise"}
    assert ids(save / "balanced_train.csv") == {"dog/1", "cat/1"}
    assert ids(save / "eval.csv") == {"dog/2", "cat/2"}
    labels = read_labels(save / "labels.csv")
    assert labels.ids == labels.names == ("cat", "dog")
    dataset = audio_dataset(save / "eval.csv", data, labels, max_seconds=1)
    targets = {item["id"]: item["target"].tolist() for item in dataset}
    assert targets == {"dog/2": [0, 1], "cat/2": [1, 1]}
    counts = summary(save)["subsets"]
    assert {name: counts[name]["used"] for name in counts} == {
        "balanced_train": 2,
        "eval": 2,
        "pretrain": 3,
    }


def test_class_names_may_hold_commas_and_quotes(data, save):
    name = 'Male speech, "man" speaking'
    quoted = name.replace('"', '""')
    label(data, f'dog/1.wav,"{quoted};Dog",train', "dog/2.wav, Dog ; Dog,eval")
    prepare.prepare_own_data(data, save)
    labels = read_labels(save / "labels.csv")
    assert labels.names == ("Dog", name)
    dataset = audio_dataset(save / "balanced_train.csv", data, labels, max_seconds=1)
    assert dataset[0]["target"].tolist() == [1, 1]
    assert read_csv(save / "eval.csv")[0]["labels"] == "Dog"


def test_tables_as_spreadsheets_write_them(data, save):
    name = "Hündin.wav"
    write(data / unicodedata.normalize("NFD", name))  # as macOS names it
    text = f"\ufeffFile, Label\r\n{name},dog\r\n./dog/1.wav,dog\r\n\r\n"
    (data / "labels.csv").write_bytes(text.encode())
    prepare.prepare_own_data(data, save)
    rows = read_csv(save / "balanced_train.csv")
    assert {row["labels"] for row in rows} == {"dog"}
    found = {unicodedata.normalize("NFC", row["ID"]) for row in rows}
    assert found == {"Hündin", "dog/1"}  # neither of them is the one in five


def test_without_a_split_a_fifth_is_held_out_for_good(tmp_path, save):
    names = [f"{number}.wav" for number in range(60)]
    for name in names:
        write(tmp_path / "data" / name, seconds=0.03)
    label(tmp_path / "data", *(f"{n},x" for n in names[:30]), header="file,label")
    prepare.prepare_own_data(tmp_path / "data", save)
    before = ids(save / "balanced_train.csv"), ids(save / "eval.csv")
    assert len(before[0] | before[1]) == 30 and before[1]
    label(tmp_path / "data", *(f"{n},x" for n in names), header="file,label")
    prepare.prepare_own_data(tmp_path / "data", save)
    assert before[0] < ids(save / "balanced_train.csv")
    assert before[1] < ids(save / "eval.csv")
    many = {f"class/{number}.wav": Labeled(("x",)) for number in range(10000)}
    splits = [line.split for line in split_by_hash(many, {}).values()]
    assert splits.count("test") == pytest.approx(2000, abs=160)  # 4 deviations


def test_unusable_listed_files_are_named(data, save, caplog):
    write(data / "short.wav", seconds=0.01)
    (data / "talk.doc").touch()
    label(
        data,
        "gone.wav,dog,train",
        "talk.doc,dog,train",
        "short.wav,cat,eval",
        "dog/1.wav,,train",
        "cat/1.wav,,eval",
        "cat/2.wav,cat,train",
    )
    with caplog.at_level(logging.INFO):
        prepare.prepare_own_data(data, save)
    assert {name: (r["subset"], r["reason"]) for name, r in skipped(save).items()} == {
        "gone.wav": ("balanced_train", "missing"),
        str(data / "talk.doc"): ("balanced_train", "not an audio file: suffix '.doc'"),
        "dog/1.wav": ("balanced_train", "no label"),
        "cat/1.wav": ("eval", "no label"),
        "short.wav": ("eval", "too short: 160 samples, 400 needed"),
    }
    # Files without a label are for pre-training, unless they are for evaluation.
    assert ids(save / "pretrain.csv") == {"dog/1", "dog/2", "cat/2", "noise"}
    train = summary(save)["subsets"]["balanced_train"]
    expected = {"listed": 4, "found": 3, "missing": 1, "skipped": 2, "used": 1}
    assert expected.items() <= train.items()
    for files in ("gone.wav", "dog/1.wav, cat/1.wav", "short.wav"):
        assert f": {files} (" in caplog.text
    assert re.search("1 of 2 classes .* training, e.g. 'dog'", caplog.text)
    assert re.search("2 of 2 classes .* evaluation, e.g. 'cat'", caplog.text)


def test_ids_are_unique_with_any_suffixes():
    files = ["a.wav", "a.flac", "a.wav.ogg", "b.mp3", "c/b.mp3", "d.WAV", "d.wav"]
    assert prepare.name_clips(files) == {
        "a.wav": "a.wav",
        "a.flac": "a.flac",
        "a.wav.ogg": "a.wav.ogg",
        "b.mp3": "b",
        "c/b.mp3": "c/b",
        "d.WAV": "d.WAV",
        "d.wav": "d.wav",
    }


def new_file(data, save):
    write(data / "new.wav")


def replaced_file(data, save):
    write(data / "noise.flac", seconds=1)


def removed_file(data, save):
    (data / "noise.flac").unlink()


def other_labels(data, save):
    label(data, "dog/1.wav,wolf,train")


def deleted_result(data, save):
    (save / "eval.csv").unlink()


@pytest.mark.parametrize(
    "change", [new_file, replaced_file, removed_file, other_labels, deleted_result]
)
def test_a_change_is_noticed(data, save, change):
    prepare.prepare_own_data(data, save)
    before = (save / "summary.json").stat().st_mtime_ns
    change(data, save)
    prepare.prepare_own_data(data, save)
    assert (save / "summary.json").stat().st_mtime_ns > before
    assert (save / "eval.csv").exists() == (change is not other_labels)
    prepare.prepare_own_data(data, save)
    (data / "labels.csv").unlink()
    prepare.prepare_own_data(data, save, labels="none")
    assert not (save / "labels.csv").exists()
    assert not (save / "balanced_train.csv").exists()


def test_no_manifest_is_left_over(data, save):
    prepare.prepare_own_data(data, save)
    (data / "noise.flac").unlink()
    files = ("dog/1.wav", "dog/2.wav", "cat/1.wav", "cat/2.wav")
    label(data, *(f"{file},x,Eval" for file in files))
    prepare.prepare_own_data(data, save)
    assert {path.stem for path in save.glob("*.csv")} == {
        "checked",
        "eval",
        "labels",
        "skipped",
    }


def table(header, *lines):
    return lambda data: label(data, *lines, header=header)


def no_recordings(data):
    for path in data.rglob("*.*"):
        if path.name != "labels.csv":
            path.unlink()
    (data / "talk.doc").touch()


def only_text(data):
    for path in data.rglob("*.*"):
        path.write_text("no audio")
    (data / "labels.csv").unlink()


def not_utf8(data):
    (data / "labels.csv").write_bytes(b"file,labels\ndog/1.wav,h\xfcndin\n")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (no_recordings, "data: .* 1 .doc"),
        (only_text, "data: .* 5 .*unreadable: "),
        (not_utf8, "data/labels.csv: .*UTF-8"),
        (table("file,when", "dog/1.wav,now"), "data/labels.csv: .*'file,when'"),
        (table("wo,was", "dog/1.wav,dog"), "data/labels.csv: .*'wo', 'was'"),
        (table("file;labels"), "data/labels.csv: "),
        (table("file,label", "a.wav,Speech, male"), "data/labels.csv: line 2: "),
        (table("file,label", "dog/1.wav,"), "data/labels.csv: "),
        (table("file,label"), "data/labels.csv: "),
        (table("file,fold,label", "a.wav,1,x", "a.wav,2,y"), "line 3: .*'a.wav'"),
        (table("file,label", ",x"), "labels.csv: line 2: .*''"),
        (table("file,label", "a.wav,A$AP"), r"labels.csv: line 2: .*'A\$AP'"),
        (table("file,label,split", "a.wav,x,tset"), "labels.csv: line 2: .*'tset'"),
        (table("file,label", "3.wav,x"), "data/labels.csv: .* 1 .*3.wav': missing"),
        (table("file,label", "1.wav,x"), "data/labels.csv: .*'1.wav': ambiguous"),
    ],
)
def test_an_unusable_folder(data, save, spoil, fault):
    spoil(data)
    with pytest.raises(ManifestError, match=f"^{data.parent}.*{fault}"):
        prepare.prepare_own_data(data, save)
    assert not list(save.glob("*.json"))


def test_the_users_labels_are_never_overwritten(data):
    before = (data / "labels.csv").read_text()
    with pytest.raises(ManifestError, match="labels.csv"):
        prepare.prepare_own_data(data, data / "dog" / "..")
    assert (data / "labels.csv").read_text() == before
    prepare.prepare_own_data(data, data / "manifests")  # a subfolder is fine
    with pytest.raises(ManifestError, match=re.escape(f"{data / 'no'}: ")):
        prepare.prepare_own_data(data / "no", data / "save")


@pytest.mark.slow
def test_the_command_line(data, save):
    run = subprocess.run(
        [sys.executable, SCRIPT, data, save],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    [counts] = re.findall("^eval: .*", run.stderr, re.MULTILINE)
    assert re.findall(r"\d+", counts)[:4] == ["2", "0", "0", "2"]
    assert "--num_classes 2" in run.stderr
