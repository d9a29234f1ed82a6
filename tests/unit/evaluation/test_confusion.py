import csv

import torch
from sklearn.metrics import confusion_matrix

from eat.evaluation.per_class import confusion, write_confusion


def draw(clips=200, classes=7):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(clips, classes, generator=generator)
    truth = torch.randint(classes, (clips,), generator=generator)
    return logits, torch.eye(classes)[truth]


def test_equals_scikit_learn():
    logits, labels = draw()
    expected = confusion_matrix(labels.argmax(1), logits.argmax(1))
    assert confusion(logits, labels).tolist() == expected.tolist()


def test_classes_that_do_not_occur_have_rows():
    counts = confusion(torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([[1.0, 0, 0]]))
    assert counts.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_table_says_true_class_by_row(tmp_path):
    path = tmp_path / "confusion.csv"
    logits = torch.tensor([[0.0, 5.0], [0.0, 5.0], [0.0, 5.0]])
    labels = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])
    write_confusion(path, ["dog, barking", 'a "cat"'], logits, labels)
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["true class \\ answer", "dog, barking", 'a "cat"'],
        ["dog, barking", "0", "2"],
        ['a "cat"', "0", "1"],
    ]
