import csv
import importlib
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat.data.dataset import audio_dataset
from eat.data.manifest import read_labels
from eat.errors import ManifestError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "AudioSet" / "audioset_prepare.py"
sys.path.append(str(SCRIPT.parent))
prepare = importlib.import_module("audioset_prepare")

COMMENTS = "# Segments csv\n# num_ytids=5\n# YTID, start_seconds, end_seconds, labels\n"
LABELS = 'index,mid,display_name\n0,/m/1,"Speech"\n1,/m/2,"Dog, bark"\n'


def write_wav(path, samples=16000, rate=16000, channels=1, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, (samples, channels))
    soundfile.write(path, wav, rate, **options)


def write_list(path, clips):
    rows = [f'{id_}, 0.000, 10.000, "{labels}"\n' for id_, labels in clips.items()]
    path.write_text(COMMENTS + "".join(rows))


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def ids(path):
    return [row["ID"] for row in read_csv(path)]


def summary(save):
    return json.loads((save / "summary.json").read_text())


@pytest.fixture
def corpus(tmp_path):
    """An AudioSet with each kind of problem once."""
    data = tmp_path / "data"
    audio = data / "audio"
    write_wav(audio / "train" / "-good1.wav")
    write_wav(audio / "train" / "stereo44.wav", 441000, 44100, channels=2)
    write_wav(audio / "train" / "eightbit.wav", subtype="PCM_U8")
    write_wav(audio / "deep" / "er" / "bal1.wav", 32000, 32000)
    write_wav(audio / "eval" / "ev1.wav")
    write_wav(audio / "eval" / "limit.wav", 10000)
    write_wav(audio / "eval" / "short.wav", 9999)
    write_wav(audio / "eval" / "none.wav", 0)
    write_wav(audio / "eval" / "foreign.wav")
    write_wav(audio / "train" / "cut.wav")
    content = (audio / "train" / "cut.wav").read_bytes()
    (audio / "train" / "cut.wav").write_bytes(content[:9000])
    (audio / "train" / "text.wav").write_text("<html>")
    write_wav(audio / "unlisted.wav")
    write_wav(audio / "zzz" / "ev1.wav", 20000)  # a second ev1, not used
    write_list(
        data / "unbalanced_train_segments.csv",
        {
            "-good1": "/m/1,/m/2",
            "stereo44": "/m/2",
            "cut": "/m/1",
            "text": "/m/1",
            "gone": "/m/1",
        },
    )
    write_list(
        data / "balanced_train_segments.csv", {"bal1": "/m/1", "eightbit": "/m/2"}
    )
    write_list(
        data / "eval_segments.csv",
        {
            "ev1": "/m/1",
            "limit": "/m/2",
            "short": "/m/1",
            "none": "/m/1",
            "foreign": "/m/1,/m/999",
        },
    )
    (data / "class_labels_indices.csv").write_text(LABELS)
    return data


def test_manifests_hold_the_usable_clips(corpus, tmp_path):
    save = tmp_path / "new" / "save"
    prepare.prepare_audioset(corpus, save)
    assert ids(save / "unbalanced_train.csv") == ["-good1", "stereo44"]
    assert ids(save / "balanced_train.csv") == ["bal1", "eightbit"]
    assert ids(save / "eval.csv") == ["ev1", "limit"]
    assert ids(save / "pretrain.csv") == ["-good1", "stereo44", "bal1", "eightbit"]
    assert read_csv(save / "unbalanced_train.csv")[0] == {
        "ID": "-good1",
        "duration": "1.0000",
        "wav": "$data_root/audio/train/-good1.wav",
        "labels": "/m/1;/m/2",
    }
    known = read_labels(corpus / "class_labels_indices.csv")
    assert read_labels(save / "labels.csv") == known


def test_the_dataset_reads_each_manifest(corpus, tmp_path):
    prepare.prepare_audioset(corpus, tmp_path)
    labels = read_labels(tmp_path / "labels.csv")
    for name in ("pretrain", "unbalanced_train", "balanced_train", "eval"):
        dataset = audio_dataset(tmp_path / f"{name}.csv", corpus, labels, 10.0)
        for index in range(len(dataset)):
            assert dataset[index]["target"].sum() > 0


def test_each_skipped_clip_is_listed_with_its_reason(corpus, tmp_path):
    prepare.prepare_audioset(corpus, tmp_path)
    skipped = {row["id"]: row for row in read_csv(tmp_path / "skipped.csv")}
    reasons = {
        "cut": "unreadable: ",
        "text": "unreadable: ",
        "gone": "missing",
        "short": "too short: 9999 samples, 10000 needed",
        "none": "unreadable: ",
        "foreign": "label not in class_labels_indices.csv: /m/999",
    }
    assert skipped.keys() == reasons.keys()
    for id_, reason in reasons.items():
        assert skipped[id_]["reason"].startswith(reason)
    assert skipped["short"]["file"] == "audio/eval/short.wav"
    assert skipped["short"]["subset"] == "eval"
    assert skipped["gone"]["file"] == ""


def test_the_summary_counts(corpus, tmp_path):
    prepare.prepare_audioset(corpus, tmp_path)
    assert summary(tmp_path)["subsets"]["unbalanced_train"] == {
        "listed": 5,
        "found": 4,
        "missing": 1,
        "skipped": 2,
        "used": 2,
        "used_in_paper": None,
        "hours": 0.003,
        "sample_rates": {"16000": 1, "44100": 1},
        "channels": {"1": 1, "2": 1},
    }
    pretrain = summary(tmp_path)["subsets"]["pretrain"]
    assert (pretrain["used"], pretrain["used_in_paper"]) == (4, 1_912_134)
    aside = {"duplicates": 1, "unlisted": 1}
    assert summary(tmp_path)["files_left_aside"] == aside


def test_a_usable_file_is_preferred_to_an_unusable_one_of_the_same_clip(
    corpus, tmp_path
):
    first, second = (corpus / "audio" / name / "ev1.wav" for name in ("eval", "zzz"))
    first.write_bytes(b"")
    prepare.prepare_audioset(corpus, tmp_path)
    rows = {row["ID"]: row for row in read_csv(tmp_path / "eval.csv")}
    assert rows["ev1"]["wav"] == "$data_root/audio/zzz/ev1.wav"
    assert rows["ev1"]["duration"] == "1.2500"
    assert summary(tmp_path)["files_left_aside"]["duplicates"] == 1
    second.write_bytes(b"")
    (tmp_path / "summary.json").unlink()
    prepare.prepare_audioset(corpus, tmp_path)
    skipped = {row["id"]: row for row in read_csv(tmp_path / "skipped.csv")}
    assert skipped["ev1"]["file"] == "audio/eval/ev1.wav"  # the first, if none will do


@pytest.mark.parametrize("change", ["list", "audio", "min_samples", "result"])
def test_a_change_is_noticed(corpus, tmp_path, change):
    prepare.prepare_audioset(corpus, tmp_path)
    min_samples = 10000
    if change == "list":
        write_list(corpus / "eval_segments.csv", {"ev1": "/m/1"})
    elif change == "audio":
        write_wav(corpus / "audio" / "train" / "gone.wav")
    elif change == "min_samples":
        min_samples = 9999
    else:
        (tmp_path / "eval.csv").unlink()
    before = summary(tmp_path)
    prepare.prepare_audioset(corpus, tmp_path, min_samples)
    assert (tmp_path / "eval.csv").exists()
    assert (summary(tmp_path) == before) == (change == "result")


def test_absent_lists_are_left_out(corpus, tmp_path):
    prepare.prepare_audioset(corpus, tmp_path)
    (corpus / "unbalanced_train_segments.csv").unlink()
    prepare.prepare_audioset(corpus, tmp_path)
    assert not (tmp_path / "unbalanced_train.csv").exists()
    assert ids(tmp_path / "pretrain.csv") == ["bal1", "eightbit"]
    (corpus / "balanced_train_segments.csv").unlink()
    prepare.prepare_audioset(corpus, tmp_path)
    assert not (tmp_path / "pretrain.csv").exists()
    assert list(summary(tmp_path)["subsets"]) == ["eval"]


def no_corpus(data):
    shutil.rmtree(data)


def empty_corpus(data):
    shutil.rmtree(data)
    data.mkdir()


def no_label_list(data):
    (data / "class_labels_indices.csv").unlink()


def no_lists(data):
    for path in data.glob("*_segments.csv"):
        path.unlink()


def no_audio(data):
    shutil.rmtree(data / "audio")


def empty_audio(data):
    shutil.rmtree(data / "audio")
    (data / "audio").mkdir()


def other_names(data):
    empty_audio(data)
    write_wav(data / "audio" / "clip-good1.wav")


def only_archives(data):
    empty_audio(data)
    (data / "audio" / "eval.tar").touch()


def no_clips(data):
    (data / "eval_segments.csv").write_text("# YTID, start, end, labels\n")


def names_for_ids(data):
    path = data / "eval_segments.csv"
    path.write_text(path.read_text().replace("/m/", "Dog "))


def cut_list(data):
    with open(data / "eval_segments.csv", "a") as file:
        file.write("ev9, 0.000\n")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (no_corpus, "data: "),
        (empty_corpus, "data: .*eval_segments.csv.*parquet.*train.tsv"),
        (no_label_list, "class_labels_indices.csv: .* http"),
        (no_lists, "data: .*eval_segments.csv.*parquet.*train.tsv"),
        (no_audio, "data: .*.wav .flac .ogg .mp3"),
        (empty_audio, "data: .*.wav .flac .ogg .mp3"),
        (other_names, "data: .*12 "),
        (only_archives, "audio/eval.tar: .*tar -xf "),
        (no_clips, "eval_segments.csv: no clips"),
        (names_for_ids, "'Dog .*class_labels_indices.csv"),
        (cut_list, "eval_segments.csv: line 9: 2 "),
    ],
)
def test_a_malformed_corpus(corpus, tmp_path, spoil, fault):
    spoil(corpus)
    with pytest.raises(ManifestError, match=fault):
        prepare.prepare_audioset(corpus, tmp_path / "save")
    results = {path.name for path in (tmp_path / "save").glob("*")}
    assert results <= {"checked.csv"}


@pytest.mark.slow
def test_the_command_line_logs_a_line_per_subset(corpus, tmp_path):
    run = subprocess.run(
        [sys.executable, SCRIPT, corpus, tmp_path / "save"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = run.stderr.splitlines()
    [counts] = [line for line in lines if line.startswith("eval: ")]
    assert re.findall(r"\d+", counts)[:4] == ["5", "0", "3", "2"]
    subsets = ("unbalanced_train", "balanced_train", "eval", "pretrain")
    assert [line.partition(": ")[0] for line in lines[1:5]] == list(subsets)
    assert re.findall(r"\d+", lines[5]) == ["1", "1"]  # audio files without a use


def save_as(path, delimiter=",", encoding="utf-8", head="", quoting=csv.QUOTE_MINIMAL):
    """Save an official list as a spreadsheet does, with another header."""
    rows = [line for line in path.read_text().splitlines() if line[0] != "#"]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting)
    writer.writerows(csv.reader([head] * bool(head) + rows, skipinitialspace=True))
    path.write_bytes(text.getvalue().encode(encoding))


@pytest.mark.parametrize(
    "form",
    [
        {"encoding": "utf-8-sig", "head": "YTID,start_seconds,end_seconds,labels"},
        {"delimiter": ";", "head": "# YTID,start_seconds,end_seconds,labels"},
        {"delimiter": "\t", "encoding": "utf-16"},
        {"quoting": csv.QUOTE_ALL, "head": "video_id,start,end,positive_labels"},
    ],
)
def test_lists_may_be_saved_by_any_program(corpus, tmp_path, form):
    prepare.prepare_audioset(corpus, tmp_path / "expected")
    for path in corpus.glob("*_segments.csv"):
        save_as(path, **form)
    text = (corpus / "class_labels_indices.csv").read_text()
    (corpus / "class_labels_indices.csv").write_text("# comment\n" + text)
    save_as(corpus / "class_labels_indices.csv", **{**form, "head": ""})
    prepare.prepare_audioset(corpus, tmp_path / "save")
    names = ("unbalanced_train.csv", "balanced_train.csv", "eval.csv", "labels.csv")
    for name in (*names, "pretrain.csv", "skipped.csv"):
        found, expected = (tmp_path / folder / name for folder in ("save", "expected"))
        assert found.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("#NAME?, 0, 10, /m/1", "line 9 .*#NAME"),
        ("1.2E+15, 0, 10, /m/1", "line 9: '1.2E.15'"),
        ("ev9, 0, Oct 10, /m/1", "line 9: .*Oct 10"),
        ("ev1, 0, 10, /m/2", "line 9: 'ev1' .*other labels"),
        ('ev9, 0, 10, "/m/1', "line 9: "),
        ("ev9, 0, 10, /m/1, /m/2", "line 9: 5 "),
    ],
)
def test_lines_that_a_spreadsheet_spoiled(corpus, tmp_path, line, fault):
    with open(corpus / "eval_segments.csv", "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ManifestError, match=f"eval_segments.csv: {fault}"):
        prepare.prepare_audioset(corpus, tmp_path)


def test_decimal_commas_and_lists_of_labels_are_read(corpus, tmp_path):
    prepare.prepare_audioset(corpus, tmp_path / "expected")
    path = corpus / "eval_segments.csv"
    text = re.sub(r'"([^"]*)"', lambda m: f'"{m[1].split(",")}"', path.read_text())
    text = re.sub(r"(\d)\.(\d)", r"\1,\2", text.replace(", ", "\t", 3))
    path.write_text(
        re.sub(r"^(\w+), (.*?), (.*?), ", r"\1\t\2\t\3\t", text, flags=re.M)
    )
    prepare.prepare_audioset(corpus, tmp_path / "save")
    found, expected = (tmp_path / f / "eval.csv" for f in ("save", "expected"))
    assert found.read_bytes() == expected.read_bytes()


def test_repeated_lines_count_once_and_odd_ids_are_named(corpus, tmp_path, caplog):
    path = corpus / "eval_segments.csv"
    clips = {"ev1": "/m/1", "abcdefghijk": "/m/1;", "0bcdefghijk": "/m/2"}
    write_list(path, clips)
    path.write_text(path.read_text() + 'ev1, 0.000, 10.000, "/m/1"\n')
    with caplog.at_level(logging.WARNING):
        prepare.prepare_audioset(corpus, tmp_path)
    assert summary(tmp_path)["subsets"]["eval"]["listed"] == 3
    lines = [text for text in caplog.messages if text.startswith(str(path))]
    assert re.search(": 1 ", lines[0]) and re.search(": 1 .*ev1", lines[1])


def test_clips_for_evaluation_are_never_trained_on(corpus, tmp_path):
    """Whatever list they are in as well, and whether or not they are there."""
    write_list(
        corpus / "balanced_train_segments.csv",
        {"ev1": "/m/1", "eightbit": "/m/2", "bal1": "/m/1"},
    )
    (corpus / "audio" / "deep" / "er" / "bal1.wav").unlink()
    write_list(corpus / "eval_segments.csv", {"ev1": "/m/1", "bal1": "/m/1"})
    prepare.prepare_audioset(corpus, tmp_path)
    assert ids(tmp_path / "eval.csv") == ["ev1"]
    assert ids(tmp_path / "balanced_train.csv") == ["eightbit"]
    assert ids(tmp_path / "pretrain.csv") == ["-good1", "stereo44", "eightbit"]
    reasons = [row["reason"] for row in read_csv(tmp_path / "skipped.csv")]
    assert reasons.count("in the evaluation list as well") == 1
    shutil.copy(corpus / "eval_segments.csv", corpus / "unbalanced_train_segments.csv")
    with pytest.raises(ManifestError, match="unbalanced_train: .* 2 "):
        prepare.prepare_audioset(corpus, tmp_path)


@pytest.mark.parametrize("suffix", [".oga", ".aiff", ".AIFF"])
def test_audio_of_every_suffix_is_found(corpus, tmp_path, suffix):
    path = corpus / "audio" / "train" / "-good1.wav"
    wav, rate = soundfile.read(path)
    form = "OGG" if suffix == ".oga" else "AIFF"
    soundfile.write(path.with_suffix(suffix), wav, rate, format=form)
    path.unlink()
    prepare.prepare_audioset(corpus, tmp_path)
    assert ids(tmp_path / "unbalanced_train.csv")[0] == "-good1"
