"""Per-class average precision in the official format, and the confusion matrix."""

import csv
import math
import re

import pytest
import torch
from sklearn.metrics import average_precision_score, confusion_matrix

from eat.evaluation.per_class import (
    MultiLabelEvaluation,
    confusion,
    read_class_ap,
    write_class_ap,
    write_confusion,
)

# The first lines of an official file, as bytes.
OFFICIAL = (
    b"Class                                              AP\n"
    b"Speech                                             0.8016\n"
    b"Male speech, man speaking                          0.0856\n"
    b"Chirp, tweet                                       0.5000\n"
)


def test_an_official_file_is_written_back_unchanged(tmp_path):
    (tmp_path / "official.txt").write_bytes(OFFICIAL)
    found = read_class_ap(tmp_path / "official.txt")
    assert found == {
        "Speech": 0.8016,
        "Male speech, man speaking": 0.0856,
        "Chirp, tweet": 0.5,
    }
    write_class_ap(tmp_path / "ours.txt", list(found), list(found.values()))
    assert (tmp_path / "ours.txt").read_bytes() == OFFICIAL


def test_decimals_order_nan_and_long_names(tmp_path):
    path, long = tmp_path / "class_ap.txt", "a name of more than fifty letters, " * 2
    write_class_ap(path, ["b", "a", long.strip()], [0.123456, math.nan, 1.0])
    found = read_class_ap(path)
    assert list(found) == ["b", "a", long.strip()]
    assert found["b"] == 0.1235 and math.isnan(found["a"]) and found[long.strip()] == 1


def test_names_and_values_must_match(tmp_path):
    with pytest.raises(ValueError):
        write_class_ap(tmp_path / "x.txt", ["a", "b"], [0.5])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"", "Class"),
        (b"Speech 0.5\n", "Class"),
        (b"Class AP\nSpeech 0.5\nMusic high\n", "line 3"),
        (b"\xff\xfe", ""),
    ],
)
def test_other_files_are_rejected_by_name(tmp_path, text, named):
    path = tmp_path / "other.txt"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        read_class_ap(path)
    assert named in str(error.value)


def test_confusion_equals_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 7, generator=generator)
    truth = torch.randint(7, (200,), generator=generator)
    expected = confusion_matrix(truth, logits.argmax(1))
    assert confusion(logits, torch.eye(7)[truth]).tolist() == expected.tolist()


def test_classes_that_do_not_occur_have_rows():
    counts = confusion(torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([[1.0, 0, 0]]))
    assert counts.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_confusion_file_has_a_row_per_true_class(tmp_path):
    path = tmp_path / "confusion.csv"
    logits = torch.tensor([[0.0, 5.0], [0.0, 5.0], [0.0, 5.0]])
    labels = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])
    write_confusion(path, ["dog, barking", 'a "cat"'], logits, labels)
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == ["dog, barking", 'a "cat"']
    assert rows == [["dog, barking", "0", "2"], ['a "cat"', "0", "1"]]


@pytest.mark.parametrize(("low", "high"), [(17, 60), (-1, 1), (-150, -100), (80, 900)])
def test_multi_label_clips_are_ranked_by_logits(tmp_path, low, high):
    """Probabilities in fp32 would tie at both ends; scikit-learn gets the logits."""
    generator = torch.Generator().manual_seed(low + 200)
    logits = low + (high - low) * torch.rand(300, 4, generator=generator)
    labels = (torch.rand(300, 4, generator=generator) < 0.1).float()
    logits += 0.1 * (high - low) * labels
    want = [average_precision_score(labels[:, c], logits[:, c]) for c in range(4)]
    evaluation, names = MultiLabelEvaluation(), list("abcd")
    found = evaluation.metrics(logits, labels)["mAP"]
    assert found == pytest.approx(sum(want) / 4, abs=1e-12)
    evaluation.write_report(tmp_path, names, logits, labels)
    written = read_class_ap(tmp_path / "class_ap.txt")
    assert [*written.values()] == pytest.approx(want, abs=6e-5)
