"""Files of class names, and what a checkpoint says about its classes."""

import csv
import json

import pytest
import torch

import eat.interop.labels
from eat.data.manifest import LabelSet, read_labels, write_labels
from eat.errors import ManifestError
from eat.interop.labels import audioset_names, labels_json, read_label_names
from eat.interop.loading import Checkpoint
from eat.interop.pretrained import save_model
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder

NAMES = ("Speech", "Male speech, man speaking", "Käse")


def test_audioset_has_the_official_classes():
    names = audioset_names()
    assert len(names) == len(set(names)) == 527
    # Indices that the official evaluation code, the ontology and papers give.
    known = {0: "Speech", 74: "Dog", 137: "Music", 300: "Vehicle", 500: "Silence"}
    assert {index: names[index] for index in known} == known
    assert names[1] == "Male speech, man speaking"


def test_audioset_list_is_googles_file_after_a_notice(tmp_path):
    path = eat.interop.labels.__file__.replace("labels.py", "audioset_labels.csv")
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines(keepends=True)
    notice = [line for line in lines if line.startswith("#")]
    assert "CC BY 4.0" in "".join(notice)
    (tmp_path / "list.csv").write_text("".join(lines[len(notice) :]))
    labels = read_labels(tmp_path / "list.csv")
    assert labels.names == audioset_names()
    assert {mid[:3] for mid in labels.ids} == {"/m/", "/t/", "/g/"}


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def test_all_formats_give_the_names_in_order(tmp_path):
    ids = ("/m/1", "/m/2", "x")
    write_labels(tmp_path / "labels.csv", LabelSet(ids, NAMES))
    rows = [*zip(range(3), ids, NAMES, strict=True)]
    write_csv(tmp_path / "official.csv", rows)  # without header
    write_csv(
        tmp_path / "shuffled.csv",
        [("index", "display_name"), *((i, n) for i, _, n in rows[::-1])],
    )
    write_csv(tmp_path / "own.csv", [("name",), *((n,) for n in NAMES)])
    (tmp_path / "names.txt").write_text(
        "\ufeff# comment\n" + "\r\n".join(NAMES) + "\n\n"
    )
    files = {
        "labels.json": labels_json(NAMES, ids),
        "list.json": json.dumps(NAMES),
        "id2label.json": json.dumps({2: NAMES[2], 0: NAMES[0], 1: NAMES[1]}),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = {path.name: read_label_names(path) for path in tmp_path.iterdir()}
    assert len(found) == 8
    assert found == dict.fromkeys(found, NAMES)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", ""),
        ("a.csv", "index,display_name\n"),
        ("a.csv", "index,display_name\n0,Dog\n2,Cat\n"),
        ("a.csv", "index,display_name\n0,Dog\n0,Cat\n"),
        ("a.csv", "display_name,index\nDog\n,1\n"),
        ("a.json", "{"),
        ("a.json", "[" * 100_000),
        ("a.json", "[1, 2]"),
        ("a.json", '[{"id": 1}]'),
        ("a.json", '{"0": 1}'),
        ("a.json", "3"),
        ("a.json", "[]"),
    ],
)
def test_unusable_lists_are_refused_by_name(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=name) as caught:
        read_label_names(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_list(tmp_path):
    with pytest.raises(ManifestError, match="no.txt"):
        read_label_names(tmp_path / "no.txt")


def checkpoint(folder, classes, **config):
    classifier = EATClassifier(EATEncoder(dim=8, depth=1, num_heads=1), classes)
    save_model(
        folder, {"kind": "classifier", **classifier.config, **config}, classifier
    )
    return Checkpoint.read(folder)


def test_classes_of_folders_that_do_not_say(tmp_path):
    audioset = checkpoint(tmp_path / "a", 527)
    assert audioset.labels == audioset_names()
    assert audioset.multi_label
    other = checkpoint(tmp_path / "b", 3)
    assert other.labels is None
    assert not other.multi_label


def test_what_a_folder_says_comes_first(tmp_path):
    names = [str(i) for i in range(527)]
    single = checkpoint(tmp_path / "a", 527, labels=names, multi_label=False)
    assert single.labels == tuple(names)
    assert not single.multi_label
    assert checkpoint(tmp_path / "b", 3, multi_label=True).multi_label


@pytest.mark.parametrize("corpus", ["esc50_eval", "spcv2_eval", None])
def test_official_files_say_which_corpus_they_are_of(
    tmp_path, official_finetuned, corpus
):
    content = torch.load(official_finetuned, weights_only=True)
    flags = {flag: flag == corpus for flag in ("esc50_eval", "spcv2_eval")}
    content["cfg"]["task"] |= flags
    torch.save(content, tmp_path / "official.pt")
    assert Checkpoint.read(tmp_path / "official.pt").multi_label == (corpus is None)


def test_pretrained_models_have_no_classes(official):
    pretrained = Checkpoint.read(official)
    assert pretrained.labels is None
    assert not pretrained.multi_label
