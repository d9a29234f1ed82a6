import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mini_corpora.bank import COLUMNS, SAMPLE_RATE, attribution_table, load_bank

BANK = Path(__file__).parents[3] / "tools" / "bank"


@pytest.fixture(scope="module")
def bank():
    return load_bank(BANK)


def write_bank(folder, rows, columns=COLUMNS):
    """A bank of one second in one file, listed by the given (label, start, end)."""
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLE_RATE)
    soundfile.write(folder / "a.ogg", audio, SAMPLE_RATE)
    with (folder / "clips.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        for label, start, end in rows:
            row = dict.fromkeys(COLUMNS, "x") | {"file": "a.ogg", "labels": label}
            writer.writerow(row | {"start": start, "end": end, "split": "train"})


def test_clips_are_the_listed_samples(bank):
    with (BANK / "clips.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(bank) == len(rows)
    row = max(rows, key=lambda row: int(row["start"]))
    audio, _ = soundfile.read(BANK / row["file"], dtype="float32")
    expected = audio[int(row["start"]) : int(row["end"])]
    found = [c for c in bank.clips if np.array_equal(c.audio, expected)]
    assert [clip.original for clip in found] == [row["original"]]
    assert found[0].audio.dtype == np.float32


def test_select_narrows_down(bank):
    toms = bank.select(split="test", labels=("Tom",))
    assert {(c.split, c.label) for c in toms.clips} == {("test", "Tom")}
    voice = bank.select(group="voice:ChuLo")
    assert {clip.group for clip in voice.clips} == {"voice:ChuLo"}
    groups = bank.by_group()
    assert sum(map(len, groups.values())) == len(bank)
    assert list(groups) == sorted(groups)


def test_no_source_is_in_both_splits(bank):
    train, test = (bank.select(split=split).by_group() for split in ("train", "test"))
    assert train and test and not set(train) & set(test)


def test_row_order_does_not_matter_and_empty_label_is_unlabeled(tmp_path):
    write_bank(tmp_path, [("Tom", 500, 900), ("", 0, 400)])
    clips = load_bank(tmp_path).clips
    assert [clip.label for clip in clips] == ["unlabeled", "Tom"]
    assert [len(clip.audio) for clip in clips] == [400, 400]


def test_missing_folder_and_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="clips.csv not found: give the folder"):
        load_bank(tmp_path / "nowhere")
    write_bank(tmp_path, [("Tom", 0, 400)])
    (tmp_path / "a.ogg").unlink()
    with pytest.raises(FileNotFoundError, match="a.ogg, listed in clips.csv"):
        load_bank(tmp_path)


def test_bad_lists_are_refused(tmp_path):
    write_bank(tmp_path, [("Tom", 0, SAMPLE_RATE + 1)])
    with pytest.raises(ValueError, match=r"0 to 16001 do not lie in a\.ogg"):
        load_bank(tmp_path)
    write_bank(tmp_path, [("Tom", 0, 400)], columns=COLUMNS[:-1])
    with pytest.raises(ValueError, match="lacks the columns"):
        load_bank(tmp_path)


def test_other_sampling_rate_is_refused(tmp_path):
    write_bank(tmp_path, [("Tom", 0, 400)])
    soundfile.write(tmp_path / "a.ogg", np.zeros(8000), 8000)
    with pytest.raises(ValueError, match="is not mono at 16000 Hz"):
        load_bank(tmp_path)


def test_committed_attribution_is_up_to_date(bank):
    committed = (BANK / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert committed == attribution_table(bank)


def test_attribution_counts_every_clip(bank):
    rows = [
        line.split(" | ")
        for line in attribution_table(bank).splitlines()
        if line.count(" | ") == 4 and "clips" not in line
    ]
    assert sum(int(row[3]) for row in rows) == len(bank)
