"""coverage.csv and summary.txt of a corpus with hand-counted gaps."""

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.append(str(Path(__file__).parents[2] / "recipes" / "AudioSet"))
prepare = importlib.import_module("audioset_prepare")
coverage = importlib.import_module("audioset_coverage")

LABELS = "index,mid,display_name\n" + "".join(
    f'{number},/m/{number},"Class {number}, odd"\n' for number in range(13)
)


def write_list(path, clips):
    rows = [f'{clip}, 0.000, 10.000, "{labels}"\n' for clip, labels in clips.items()]
    path.write_text("".join(rows))


@pytest.fixture
def save(tmp_path):
    """4 of 5 eval clips and 1 of 2 balanced ones are used; class 3 has none."""
    (tmp_path / "class_labels_indices.csv").write_text(LABELS)
    evals = {"e1": "/m/0,/m/1", "e2": "/m/0", "e3": "/m/0,/m/2", "e4": "/m/2"}
    write_list(tmp_path / "eval_segments.csv", evals | {"gone": "/m/2,/m/3"})
    train = {"b1": "/m/0", "short": "/m/0,/m/1"}
    write_list(tmp_path / "balanced_train_segments.csv", train)
    for clip in (*evals, *train):
        samples = 9999 if clip == "short" else 36000
        rate = 32000 if clip == "e4" else 16000
        soundfile.write(tmp_path / f"{clip}.wav", np.zeros(samples), rate)
    prepare.prepare_audioset(tmp_path, tmp_path / "save")
    return tmp_path / "save"


def test_coverage_counts_each_class_of_each_list(save):
    with open(save / "coverage.csv", newline="") as file:
        rows = {(row["subset"], row["mid"]): row for row in csv.DictReader(file)}
    assert len(rows) == 3 * 13
    counts = {
        key: (row["listed"], row["used"], row["share"])
        for key, row in rows.items()
        if row["listed"] != "0"
    }
    assert counts == {
        ("eval", "/m/0"): ("3", "3", "1.0000"),
        ("eval", "/m/1"): ("1", "1", "1.0000"),
        ("eval", "/m/2"): ("3", "2", "0.6667"),
        ("eval", "/m/3"): ("1", "0", "0.0000"),
        ("balanced_train", "/m/0"): ("2", "1", "0.5000"),
        ("balanced_train", "/m/1"): ("1", "0", "0.0000"),
        ("pretrain", "/m/0"): ("2", "1", "0.5000"),
        ("pretrain", "/m/1"): ("1", "0", "0.0000"),
    }
    assert rows["eval", "/m/9"]["share"] == ""
    assert rows["eval", "/m/9"]["name"] == "Class 9, odd"


def test_the_page_has_the_counts(save):
    page = (save / "summary.txt").read_text()
    lines = [line.split() for line in page.splitlines()]
    cells = ["5", "4", "1", "0", "4", "18,884", "0.0%", "0.0"]
    assert ["eval", *cells] in lines
    assert ["balanced_train", "too", "short:", "1"] in lines
    assert ["eval", "16000:", "3,", "32000:", "1"] in lines
    worst = [words for words in lines if words[:1] == ["Class"] and "of" in words]
    assert [words[1] for words in worst] == ["3,", "1,", "2,", "0,"]
    assert worst[0][3:] == ["0", "of", "1", "0.0%"]
    assert worst[2][3:] == ["2", "of", "3", "66.7%"]
    assert len(lines) < 60


def test_the_page_names_ten_classes_at_most():
    classes = coverage.LabelSet(tuple("abcdefghijklm"), tuple("ABCDEFGHIJKLM"))
    listed = {
        "eval": {str(i): (name,) for i, name in enumerate(classes.ids)},
        "pretrain": {"x": ("a",)},  # joined, so not counted again
    }
    unused = dict.fromkeys(listed, coverage.Selection([], [], {}))
    worst = coverage.worst_classes(coverage.count_classes(classes, listed, unused))
    assert len(worst) == 10
    assert worst[0] == ("A", 1, 0)


@pytest.mark.parametrize(
    ("subset", "used", "share"),
    [
        ("eval", 18_884, "100.0%"),
        ("eval", 9_442, "50.0%"),
        ("pretrain", 1_912_133, "100.0%"),
        ("balanced_train", 2_055, "10.0%"),
    ],
)
def test_the_comparison_has_the_share(subset, used, share):
    text = " ".join(coverage.compare_with_paper({subset: used}))
    assert text.startswith(f"{subset}: {share} ")


def test_subsets_that_the_paper_does_not_count_are_not_compared():
    assert coverage.compare_with_paper({"unbalanced_train": 1}) == []
