import csv
import importlib.util
import json
import logging
import re
import shutil
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat.data.dataset import audio_dataset
from eat.data.manifest import read_labels
from eat.errors import ManifestError
from mini_corpora.bank import load_bank
from mini_corpora.speech_commands import SpeechCommandsSizes, write_speech_commands

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "SpeechCommands" / "speech_commands_prepare.py"
spec = importlib.util.spec_from_file_location("speech_commands_prepare", SCRIPT)
prepare = importlib.util.module_from_spec(spec)
sys.modules["speech_commands_prepare"] = prepare
spec.loader.exec_module(prepare)

SPEAKERS = {
    "train": ["0a7c2a8d", "0ac15fe9"],
    "valid": ["1b2c3d4e"],
    "test": ["ffd2ba2f"],
}
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
SUBSETS = ("train", "valid", "test")


def write_wav(path, samples=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, samples)
    soundfile.write(path, wav, 16000, subtype="PCM_16")


def write_corpus(data, words):
    """Two utterances of each word by each speaker, and the other files."""
    write_wav(data / "one.wav")
    for word in words:
        (data / word).mkdir(parents=True)
    for subset, speakers in SPEAKERS.items():
        names = [f"{speaker}_nohash_{n}.wav" for speaker in speakers for n in range(2)]
        files = [f"{word}/{name}" for word in words for name in names]
        for file in files:
            shutil.copy(data / "one.wav", data / file)
        if subset in LISTS:
            (data / LISTS[subset]).write_text("".join(f"{file}\n" for file in files))
    (data / "one.wav").unlink()
    write_wav(data / "_background_noise_" / "pink_noise.wav", 32000)
    (data / "_background_noise_" / "README.md").touch()
    (data / "README.md").touch()
    return data


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def ids(path):
    return [row["ID"] for row in read_csv(path)]


def summary(save):
    return json.loads((save / "summary.json").read_text())


def counts_of(save, subset):
    keys = ("listed", "used", "used_in_paper", "speakers")
    return tuple(map(summary(save)["subsets"][subset].get, keys))


@pytest.fixture
def data(tmp_path):
    return write_corpus(tmp_path / "speech_commands_v0.02", ["zero", "bed"])


@pytest.fixture
def faulty(data):
    """Each kind of unusable file once, and clips that are short but usable."""
    (data / "bed" / "1b2c3d4e_nohash_0.wav").unlink()
    write_wav(data / "bed" / "0a7c2a8d_nohash_0.wav", 400)
    write_wav(data / "bed" / "0a7c2a8d_nohash_1.wav", 399)
    write_wav(data / "zero" / "0a7c2a8d_nohash_0.wav", 0)
    write_wav(data / "zero" / "ffd2ba2f_nohash_0.wav", 8000)
    (data / "zero" / "ffd2ba2f_nohash_1.wav").write_text("<html>")
    write_wav(data / "zero" / "copy of zero.wav")
    (data / "zero" / ".DS_Store").touch()
    shutil.copytree(data / "zero", data / ".zero")
    return data


def check_contract(data_folder, save):
    """Every row of every manifest loads, labeled with the folder of its file."""
    labels = read_labels(save / "labels.csv")
    for subset in SUBSETS:
        dataset = audio_dataset(save / f"{subset}.csv", data_folder, labels, 1.0)
        for item in (dataset[index] for index in range(len(dataset))):
            assert 400 <= len(item["sig"]) <= 16000 and item["sig"].isfinite().all()
            assert item["target"].sum() == 1
            label = labels.ids[item["target"].argmax()]
            word = item["id"].split("/")[0]
            assert label == unicodedata.normalize("NFC", word)


def test_the_lists_divide_the_clips(data, tmp_path):
    save = tmp_path / "new" / "save"
    prepare.prepare_speech_commands(data, save)
    for subset in SUBSETS:
        assert ids(save / f"{subset}.csv") == [
            f"{word}/{speaker}_nohash_{n}"
            for word in ("bed", "zero")
            for speaker in SPEAKERS[subset]
            for n in range(2)
        ]
    assert read_csv(save / "train.csv")[0] == {
        "ID": "bed/0a7c2a8d_nohash_0",
        "duration": "1.0000",
        "wav": "$data_root/bed/0a7c2a8d_nohash_0.wav",
        "labels": "bed",
    }
    assert read_labels(save / "labels.csv").ids == ("bed", "zero")


@pytest.mark.parametrize("below", ["", "speech_commands_v0.02"])
def test_every_row_loads_from_the_corpus_and_from_its_parent(faulty, tmp_path, below):
    data_folder = faulty.parent if below else faulty
    prepare.prepare_speech_commands(data_folder, tmp_path / "save")
    check_contract(data_folder, tmp_path / "save")


@pytest.mark.slow
def test_every_row_of_the_mini_corpus_loads(tmp_path):
    folder = tmp_path / "speech_commands_v0.02"
    folder.mkdir()
    bank = load_bank(ROOT / "tools" / "bank")
    sizes = SpeechCommandsSizes(train=2, validation=1, test=1)
    write_speech_commands(bank, folder, seed=0, sizes=sizes, workers=2)
    prepare.prepare_speech_commands(tmp_path, tmp_path / "save")
    counts = [len(ids(tmp_path / "save" / f"{subset}.csv")) for subset in SUBSETS]
    assert counts == [40, 20, 20]
    assert read_csv(tmp_path / "save" / "skipped.csv") == []
    check_contract(tmp_path, tmp_path / "save")


def test_the_true_counts_pass_without_a_warning(tmp_path, caplog, monkeypatch):
    words = [f"word{i}" for i in range(35)]
    data = write_corpus(tmp_path / "speech_commands_v0.02", words)
    assert sum(prepare.PAPER_CLIPS.values()) == 105_829  # all of the corpus's files
    here = {"train": 140, "valid": 70, "test": 70}
    monkeypatch.setattr(prepare, "PAPER_CLIPS", here)
    with caplog.at_level(logging.WARNING):
        prepare.prepare_speech_commands(data, tmp_path / "save")
    assert caplog.messages == []
    assert counts_of(tmp_path / "save", "valid") == (70, 70, 70, 1)


def test_a_small_corpus_passes_with_a_warning_per_count(data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        prepare.prepare_speech_commands(data, tmp_path)
    assert [re.findall(r"\b\d+\b", line) for line in caplog.messages] == [
        ["2", "35"],
        ["8", "84843"],
        ["4", "9981"],
        ["4", "11005"],
    ]
    assert counts_of(tmp_path, "train") == (8, 8, None, 2)


def test_unusable_missing_and_unlisted_files_are_named(faulty, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        prepare.prepare_speech_commands(faulty, tmp_path)
    skipped = {row["id"]: row for row in read_csv(tmp_path / "skipped.csv")}
    reasons = {
        "bed/1b2c3d4e_nohash_0": ("valid", "missing"),
        "bed/0a7c2a8d_nohash_1": ("train", "too short: 399 samples, 400 needed"),
        "zero/0a7c2a8d_nohash_0": ("train", "unreadable: "),
        "zero/ffd2ba2f_nohash_1": ("test", "unreadable: "),
        "zero/copy of zero": ("", "not named <speaker>_nohash_<n>.wav"),
    }
    assert skipped.keys() == reasons.keys()
    for id_, (subset, reason) in reasons.items():
        assert skipped[id_]["reason"].startswith(reason)
        assert skipped[id_]["file"] == f"{id_}.wav"
        assert skipped[id_]["subset"] == subset
        assert any(f"{id_}.wav" in line for line in caplog.messages)
    used = [row["used"] for row in summary(tmp_path)["subsets"].values()]
    listed = [row["listed"] for row in summary(tmp_path)["subsets"].values()]
    assert (used, listed) == ([6, 3, 3], [8, 4, 4])
    assert "bed/0a7c2a8d_nohash_0" in ids(tmp_path / "train.csv")  # 400 samples


def test_shared_speakers_are_a_warning(data, tmp_path, caplog):
    shutil.copy(
        data / "bed" / "ffd2ba2f_nohash_0.wav", data / "bed" / "ffd2ba2f_nohash_7.wav"
    )
    with caplog.at_level(logging.WARNING):
        prepare.prepare_speech_commands(data, tmp_path)
    assert re.match(r"1 .*: ffd2ba2f$", caplog.messages[1])


def test_a_second_run_has_nothing_to_do(faulty, monkeypatch):
    save = faulty / "manifests"  # a folder in the corpus that is not a word
    prepare.prepare_speech_commands(faulty, save)
    before = (save / "summary.json").stat().st_mtime_ns
    monkeypatch.setattr(prepare, "check_audio", None)  # calling it would fail
    prepare.prepare_speech_commands(faulty, save)
    assert (save / "summary.json").stat().st_mtime_ns == before
    assert read_labels(save / "labels.csv").ids == ("bed", "zero")


@pytest.mark.parametrize("change", ["repair", "list", "delete", "result", "parent"])
def test_a_change_is_noticed(faulty, tmp_path, change):
    save = tmp_path / "save"
    prepare.prepare_speech_commands(faulty, save)
    before, data_folder, counts = summary(save), faulty, [6, 3, 3]
    good, bad = (faulty / "zero" / f"ffd2ba2f_nohash_{n}.wav" for n in range(2))
    if change == "repair":  # in place
        shutil.copy(good, bad)
        counts = [6, 3, 4]
    elif change == "list":
        path = faulty / "validation_list.txt"
        path.write_text("".join(path.open().readlines()[1:]))
        counts = [6, 2, 3]  # while another clip of the speaker is missing
    elif change == "delete":
        good.unlink()
        counts = [6, 3, 2]
    elif change == "result":
        (save / "test.csv").unlink()
    else:
        data_folder = faulty.parent
    prepare.prepare_speech_commands(data_folder, save)
    assert [len(ids(save / f"{subset}.csv")) for subset in SUBSETS] == counts
    assert (summary(save) == before) == (change == "result")
    check_contract(data_folder, save)


def append(line):
    def spoil(data):
        with open(data / "testing_list.txt", "a") as file:
            file.write(f"{line}\n")

    return spoil


def no_corpus(data):
    shutil.rmtree(data)


def no_list(data):
    (data / "testing_list.txt").unlink()


def no_lists(data):
    no_list(data)
    (data / "validation_list.txt").unlink()


def only_tar(data):
    no_lists(data)
    (data / "speech_commands_v0.02.tar.gz").touch()


def no_text(data):
    (data / "testing_list.txt").write_bytes(b"\xff\xfe")


def empty_list(data):
    (data / "validation_list.txt").write_text("\n")


def two_spellings(data):
    shutil.copytree(data / "bed", data / "bed\u200b")


def no_clips(data):
    for word in ("bed", "zero"):
        shutil.rmtree(data / word)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (no_corpus, "speech_commands_v0.02: "),
        (no_lists, "speech_commands_v0.02: .*validation_list.txt"),
        (only_tar, "v0.02.tar.gz: .*tar -xf "),
        (no_list, "testing_list.txt: "),
        (no_text, "testing_list.txt: "),
        (empty_list, "validation_list.txt: no files"),
        (two_spellings, r"speech_commands_v0.02: .*'bed', 'bed.*'"),
        (no_clips, "speech_commands_v0.02: .*8 "),
        (append("bed/x.wav"), "testing_list.txt: line 5 .*'bed/x.wav'"),
        (append("../../x_nohash_0.wav"), "testing_list.txt: line 5 .*'../../x_"),
        (
            append("bed/1b2c3d4e_nohash_0.wav"),
            "testing_list.txt: line 5, .*validation_list.txt",
        ),
    ],
)
def test_a_malformed_corpus(data, tmp_path, spoil, fault):
    spoil(data)
    with pytest.raises(ManifestError, match=f"{tmp_path}.*{fault}"):
        prepare.prepare_speech_commands(data, tmp_path / "save")
    assert not (tmp_path / "save" / "train.csv").exists()


def rewrite(path, form, encoding="utf-8", end="\n"):
    lines = [form(line) for line in path.read_text().splitlines()]
    path.write_bytes(end.join([*lines, ""]).encode(encoding))


@pytest.mark.parametrize(
    ("form", "encoding", "end"),
    [
        (str, "utf-8-sig", "\r\n"),
        (str, "utf-16", "\r"),
        (lambda line: line.replace("/", "\\"), "utf-8", "\r\n"),
        (lambda line: f'"./{line}" ,', "utf-8", "\n\n"),
        (lambda line: f" {line}\u00a0\t", "utf-8", "\n"),
        (str.upper, "utf-8", "\n"),
    ],
)
def test_the_lists_may_be_saved_by_any_program(data, tmp_path, form, encoding, end):
    prepare.prepare_speech_commands(data, tmp_path / "expected")
    if form is str.upper:  # the corpus was unpacked without regard to case
        (data / "bed").rename(data / "Bed")
        (data / "Bed").rename(data / "bed")

        def form(line):
            return line.replace("bed", "Bed").replace("ffd2ba2f", "FFD2BA2F")

    for name in LISTS.values():
        rewrite(data / name, form, encoding, end)
    prepare.prepare_speech_commands(data, tmp_path / "save")
    for subset in SUBSETS:
        found, expected = (
            ids(tmp_path / name / f"{subset}.csv") for name in ("save", "expected")
        )
        assert sorted(found) == sorted(expected)
    assert read_csv(tmp_path / "save" / "skipped.csv") == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_words_with_accents_stay_in_their_subset(tmp_path, form):
    word = unicodedata.normalize(form, "é")
    other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "é")
    data = write_corpus(tmp_path / "speech_commands_v0.02", [word, "bed"])
    for name in LISTS.values():
        rewrite(data / name, lambda line: line.replace(word, other))
    prepare.prepare_speech_commands(data, tmp_path / "save")
    counts = [len(ids(tmp_path / "save" / f"{subset}.csv")) for subset in SUBSETS]
    assert counts == [8, 4, 4]
    assert read_labels(tmp_path / "save" / "labels.csv").ids == ("bed", "é")
    check_contract(data, tmp_path / "save")


def test_copies_of_a_missing_file_of_a_list_are_not_trained_on(data, tmp_path):
    clip, copy = (data / "bed" / f"ffd2ba2f_nohash_{n}.wav" for n in (0, 7))
    clip.rename(copy)
    twin = data / "zero" / "FFD2BA2F_nohash_1.wav"  # in the list in lower case
    shutil.copy(data / "zero" / "ffd2ba2f_nohash_1.wav", twin)
    prepare.prepare_speech_commands(data, tmp_path)
    counts = [len(ids(tmp_path / f"{subset}.csv")) for subset in SUBSETS]
    assert counts == [8, 4, 3]
    skipped = {row["file"]: row["reason"] for row in read_csv(tmp_path / "skipped.csv")}
    names = [path.relative_to(data).as_posix() for path in (clip, copy, twin)]
    assert sorted(skipped) == sorted(names)
    assert skipped[names[0]] == "missing"


def test_clips_of_a_renamed_word_are_not_mixed(data, tmp_path):
    (data / "bed").rename(data / "01_bed")
    prepare.prepare_speech_commands(data, tmp_path)
    held_out = {
        line.rpartition("/")[2].removesuffix(".wav")
        for name in LISTS.values()
        for line in (data / name).read_text().split()
    }
    trained_on = {id_.rpartition("/")[2] for id_ in ids(tmp_path / "train.csv")}
    assert trained_on and not trained_on & held_out


def test_a_list_of_which_no_file_is_there(data, tmp_path):
    (data / "testing_list.txt").write_text("bed/x_nohash_0.wav\nbed/x_nohash_1.wav\n")
    with pytest.raises(ManifestError, match="testing_list.txt: .* 2 .*bed/x_nohash_0"):
        prepare.prepare_speech_commands(data, tmp_path / "save")
