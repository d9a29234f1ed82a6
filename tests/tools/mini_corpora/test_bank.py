"""The bank: its list of clips, its recordings and its attribution."""

import csv
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat.errors import AudioError, AudioNotFoundError, ManifestError
from mini_corpora.bank import COLUMNS, SAMPLE_RATE, attribution_table, load_bank

TOOLS = Path(__file__).parents[3] / "tools"
BANK = TOOLS / "bank"


@pytest.fixture(scope="module")
def clips():
    return load_bank(BANK)


def write_bank(folder, rows, columns=COLUMNS):
    """Write a bank of one second in one file, with the given (label, start, end)."""
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLE_RATE)
    soundfile.write(folder / "a.ogg", audio, SAMPLE_RATE)
    with (folder / "clips.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        for label, start, end in rows:
            row = dict.fromkeys(COLUMNS, "x") | {"file": "a.ogg", "labels": label}
            writer.writerow(row | {"start": start, "end": end, "split": "train"})


def test_clips_are_the_listed_samples(clips):
    with (BANK / "clips.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(clips) == len(rows) == 1318
    row = max(rows, key=lambda row: int(row["start"]))
    audio, _ = soundfile.read(BANK / row["file"], dtype="float32")
    expected = audio[int(row["start"]) : int(row["end"])]
    found = [clip for clip in clips if np.array_equal(clip.audio, expected)]
    assert [clip.original for clip in found] == [row["original"]]
    assert found[0].audio.dtype == np.float32


def test_no_source_is_in_both_splits(clips):
    train, test = (
        {clip.group for clip in clips if clip.split == split}
        for split in ("train", "test")
    )
    assert train and test and not train & test


def test_no_source_is_in_two_folds(clips):
    folds = {}
    for clip in clips:
        # The second sound bank is derived from the first.
        source = "FluidR3" if clip.group == "FluidR3_MSG" else clip.group
        folds.setdefault(source, set()).add(clip.fold)
    assert all(len(found) == 1 for found in folds.values())
    assert set.union(*folds.values()) == {"", *"12345"}


def test_row_order_is_ignored_and_empty_labels_are_unlabeled(tmp_path):
    write_bank(tmp_path, [("Tom", 500, 900), ("", 0, 400)])
    clips = load_bank(tmp_path)
    assert [clip.label for clip in clips] == ["unlabeled", "Tom"]
    assert [len(clip.audio) for clip in clips] == [400, 400]


def test_missing_list_is_an_error(tmp_path):
    with pytest.raises(ManifestError, match=re.escape(str(tmp_path / "clips.csv"))):
        load_bank(tmp_path)


def test_missing_recording_is_an_error(tmp_path):
    write_bank(tmp_path, [("Tom", 0, 400)])
    (tmp_path / "a.ogg").unlink()
    with pytest.raises(AudioNotFoundError, match=re.escape(str(tmp_path / "a.ogg"))):
        load_bank(tmp_path)


def test_clip_beyond_the_end_of_its_file_is_an_error(tmp_path):
    write_bank(tmp_path, [("Tom", 0, SAMPLE_RATE + 1)])
    with pytest.raises(ManifestError, match=r"a\.ogg .*16000.* 0 .*16001"):
        load_bank(tmp_path)


def test_missing_column_is_an_error(tmp_path):
    write_bank(tmp_path, [("Tom", 0, 400)], columns=COLUMNS[:-1])
    with pytest.raises(ManifestError, match="license"):
        load_bank(tmp_path)


def test_other_sampling_rate_is_an_error(tmp_path):
    write_bank(tmp_path, [("Tom", 0, 400)])
    soundfile.write(tmp_path / "a.ogg", np.zeros(8000), 8000)
    with pytest.raises(AudioError, match=re.escape(str(tmp_path / "a.ogg"))):
        load_bank(tmp_path)


def test_committed_attribution_is_up_to_date(clips):
    committed = (BANK / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert committed == attribution_table(clips)


def test_attribution_counts_every_clip(clips):
    rows = [
        line.split(" | ")
        for line in attribution_table(clips).splitlines()
        if line.count(" | ") == 4 and "clips" not in line
    ]
    assert sum(int(row[3]) for row in rows) == len(clips)


@pytest.mark.parametrize("arguments", [[], ["OUT", "--attribution"]])
def test_script_needs_either_output_or_attribution(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_mini_corpora.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOLS / "make_mini_corpora.py"), run_name="__main__")
    assert stop.value.code == 2
    assert "--attribution" in capsys.readouterr().err
