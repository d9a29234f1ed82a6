"""tools/compare_class_ap.py: the comparison of two files."""

import importlib.util
import math
from pathlib import Path

import pytest

from eat.evaluation.per_class import write_class_ap

SCRIPT = Path(__file__).parents[2] / "tools" / "compare_class_ap.py"
spec = importlib.util.spec_from_file_location("compare_class_ap", SCRIPT)
compare_class_ap = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compare_class_ap)

A = {"Speech": 0.8, "Music": 0.6, "Bark": 0.4, "Bell": 0.2, "Hum": math.nan, "X": 0.1}
B = {"Bell": 0.5, "Bark": 0.3, "Music": 0.6, "Speech": 0.9, "Hum": 0.5, "Y": 0.3}


@pytest.fixture
def compared(tmp_path, capsys):
    def compare(*options, a=A, b=B):
        for name, values in (("a", a), ("b", b)):
            write_class_ap(
                tmp_path / f"{name}.txt", list(values), list(values.values())
            )
        files = [str(tmp_path / f"{name}.txt") for name in "ab"]
        compare_class_ap.main([*files, *options])
        return capsys.readouterr().out

    return compare


def test_means_ranks_and_missing_classes(compared):
    out = compared()
    assert "a.txt: 6 classes, mAP 0.4200, 1 without a value" in out
    assert "b.txt: 6 classes, mAP 0.5167, 0 without a value" in out
    assert "Only in A, 1 classes: X\nOnly in B, 1 classes: Y\n" in out
    assert "5 classes in both files" in out and "in one or both: Hum" in out
    # Ranks 4 3 2 1 against 4 3 1 2: 1 - 6 * 2 / (4 * 15).
    assert "mAP 0.5000 in A, 0.5750 in B" in out and "rank correlation 0.800" in out
    assert "B - A +0.0750, mean absolute difference 0.1250" in out


def test_largest_differences_first_on_either_side(compared):
    out = compared("--top", "1")
    better_b, better_a = out.split("Better in A: 1 classes")
    assert "Better in B: 2 classes" in better_b
    assert "| Bell | 0.200 | 0.500 | 0.300 |" in better_b and "| Speech |" not in out
    assert "| Bark | 0.400 | 0.300 | -0.100 |" in better_a
    assert "| Speech | 0.800 | 0.900 | 0.100 |" in compared()
    assert "| Music |" not in compared()  # equal


def test_files_without_a_common_class(compared):
    out = compared(a={"X": 0.1}, b={"Y": 0.2})
    assert "0 classes in both files" in out and "Better in B: 0 classes" in out


def test_errors_are_one_line(tmp_path):
    (tmp_path / "bad.txt").write_text("not a table")
    (tmp_path / "binary.txt").write_bytes(b"\x80\x02")
    for name in ("none", "bad", "binary"):
        path = str(tmp_path / f"{name}.txt")
        with pytest.raises(SystemExit, match=rf"^error: .*{name}\.txt: [^\n]+$"):
            compare_class_ap.main([path, path])
