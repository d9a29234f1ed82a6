"""What all prepare scripts share."""

import json
import logging
import os
import re
import sys

import numpy as np
import pytest
import soundfile

import eat.data.prepare as prepare
from eat.audio.io import AudioInfo
from eat.data.audio_check import check_audio
from eat.data.manifest import LabelSet, ManifestRow, read_labels
from eat.data.prepare import Clip, Selection, Skipped
from eat.errors import ManifestError

# -- usable clips and skipped ones -------------------------------------------------


def test_the_minimum_length_is_one_window_or_given():
    assert prepare.unusable(AudioInfo(16000, 400, 1)) is None
    expected = "too short: 1102 samples, 1103 needed"
    assert prepare.unusable(AudioInfo(44100, 1102, 1)) == expected
    assert prepare.unusable(AudioInfo(16000, 9999, 1), 9999) is None
    expected = "too short: 9999 samples, 10000 needed"
    assert prepare.unusable(AudioInfo(16000, 9999, 1), 10000) == expected
    assert prepare.unusable("missing") == "missing"


def test_clips_are_used_or_skipped_with_a_reason(caplog):
    verdicts = {
        "good.wav": AudioInfo(16000, 8000, 1),
        "stereo.wav": AudioInfo(44100, 44100, 2),
        "short.wav": AudioInfo(16000, 10, 1),
        "bad.wav": "unreadable: 0 bytes",
    }
    clips = [
        Clip("good", "good.wav", ("x", "y")),
        Clip("stereo", "stereo.wav"),
        Clip("fault", "good.wav", fault="no label"),
        Clip("short", "short.wav"),
        Clip("bad", "bad.wav"),
        Clip("gone", "gone.wav"),
        Clip("nowhere", "", fault="no label"),
    ]
    with caplog.at_level(logging.INFO):
        rows, skipped, counts = vars(
            prepare.select_clips("eval", clips, verdicts, in_paper=9)
        ).values()
    assert rows == [
        ManifestRow("good", 0.5, "good.wav", ("x", "y")),
        ManifestRow("stereo", 1.0, "stereo.wav"),
    ]
    assert skipped == [
        Skipped("fault", "good.wav", "eval", "no label"),
        Skipped("short", "short.wav", "eval", "too short: 10 samples, 400 needed"),
        Skipped("bad", "bad.wav", "eval", "unreadable: 0 bytes"),
        Skipped("gone", "gone.wav", "eval", "missing"),
        Skipped("nowhere", "", "eval", "missing"),
    ]
    assert counts == {
        "listed": 7,
        "found": 5,
        "missing": 2,
        "skipped": 3,
        "used": 2,
        "used_in_paper": 9,
        "hours": round(1.5 / 3600, 3),
        "sample_rates": {16000: 1, 44100: 1},
        "channels": {1: 1, 2: 1},
    }
    [line] = caplog.messages
    assert line.startswith("eval: ") and re.findall(r"\d+", line)[:4] == list("7232")


def selection(rows=(), skipped=(), **counts):
    return Selection(list(rows), list(skipped), counts)


def test_no_usable_clip_at_all(tmp_path):
    gone = Skipped("a", "a.wav", "eval", "missing")
    prepare.require_usable({"x": selection(["row"]), "y": selection()}, tmp_path, "")
    with pytest.raises(ManifestError, match=r"none of the 1 .*again; a.wav: missing"):
        prepare.require_usable({"x": selection([], [gone])}, tmp_path, "try again")
    with pytest.raises(ManifestError, match="none of the 0 "):
        prepare.require_usable({"x": selection()}, tmp_path, "try again")


# -- results -----------------------------------------------------------------------


ROW = ManifestRow("a", 1.0, "audio/a.wav", ("crying_baby",))
LABELS = LabelSet(("dog", "crying_baby"), ("dog", "crying baby"))


def test_results_are_written_and_skipped_clips_named(tmp_path, caplog):
    missing = [Skipped(f"{i}", f"audio/{i}.wav", "test", "missing") for i in range(7)]
    unlisted = [Skipped("x", "audio/x.wav", "", "unlisted: x")]
    subsets = {
        "all": selection([ROW], missing, used=1),
        "part": selection([], missing[:1], used=0),  # the same clip again
    }
    (tmp_path / "old.csv").touch()
    with caplog.at_level(logging.WARNING):
        prepare.write_results(
            tmp_path,
            {"n": (1, 2)},
            subsets,
            LABELS,
            unlisted=unlisted,
            counts={"more": 3},
            texts={"page.txt": "text"},
            stale=["old.csv", "older.csv"],
        )
    assert read_labels(tmp_path / "labels.csv") == LABELS
    assert (tmp_path / "page.txt").read_text() == "text"
    assert not (tmp_path / "old.csv").exists()
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "subsets": {"all": {"used": 1}, "part": {"used": 0}},
        "more": 3,
        "inputs": {"n": [1, 2]},
        "files": ["all.csv", "part.csv", "skipped.csv", "labels.csv", "page.txt"],
    }
    row = "a,1.0000,$data_root/audio/a.wav,crying_baby"
    assert row in (tmp_path / "all.csv").read_text()
    lines = (tmp_path / "skipped.csv").read_text().splitlines()
    assert lines[0] == "id,file,subset,reason" and len(lines) == 9
    first, second = caplog.messages
    assert first.startswith("7 ") and "missing: audio/0.wav, audio/1.wav, " in first
    assert "and 2 more" in first
    assert second.startswith("1 ") and "unlisted: audio/x.wav" in second


def test_a_manifest_that_is_written_again_is_never_missing(tmp_path, monkeypatch):
    """Another run may have begun to read it: it is replaced, not removed."""
    write = prepare.write_manifest
    subsets, stale = {"all": selection([ROW])}, ["all.csv"]
    prepare.write_results(tmp_path, {}, subsets, LABELS, stale=stale)
    before = (tmp_path / "all.csv").read_text()

    def watched(path, rows):
        assert path.read_text() == before
        write(path, rows)

    monkeypatch.setattr(prepare, "write_manifest", watched)
    prepare.write_results(tmp_path, {"n": 2}, subsets, LABELS, stale=stale)
    assert (tmp_path / "all.csv").read_text() == before


def test_names_are_abbreviated():
    assert prepare.abbreviate("abc", 3) == "a, b, c"
    assert prepare.abbreviate(range(12), 2) == "0, 1 and 10 more"
    assert prepare.abbreviate([os.fsdecode(b"\xe9")]) == "\\udce9"


def test_results_are_up_to_date_until_something_changes(tmp_path):
    inputs = {"lists": {"a.csv": [1, 2.5]}, "files": (1, 2)}
    assert not prepare.up_to_date(tmp_path, inputs)
    prepare.write_results(tmp_path, inputs, {"all": selection([ROW])}, LABELS)
    assert prepare.up_to_date(tmp_path, inputs)
    assert not prepare.up_to_date(tmp_path, inputs | {"files": (1, 3)})
    assert not prepare.up_to_date(tmp_path, inputs, ["more.csv"])
    (tmp_path / "more.csv").touch()
    assert prepare.up_to_date(tmp_path, inputs, ["more.csv"])
    (tmp_path / "all.csv").unlink()
    assert not prepare.up_to_date(tmp_path, inputs)
    (tmp_path / "summary.json").write_text("{")
    assert not prepare.up_to_date(tmp_path, inputs)


def test_the_command_line(tmp_path, monkeypatch):
    def fail(data_folder, save_folder, part):
        raise ManifestError(f"{data_folder}: bad ({save_folder}, {part.total})")

    monkeypatch.setattr(sys, "argv", ["prepare", "here", "there"])
    prepare.run_command_line(lambda **options: None, "Prepare.", "corpus")
    with pytest.raises(SystemExit) as error:
        prepare.run_command_line(fail, "Prepare.", "corpus")
    assert error.value.code == "error: here: bad (there, 1)"


def test_suspicious_clips_are_counted_with_an_example(tmp_path, caplog):
    tone = np.sin(np.arange(16000))
    soundfile.write(tmp_path / "good.wav", tone, 16000)
    for name in ("silent.wav", "silent_too.wav"):
        soundfile.write(tmp_path / name, np.zeros(16000), 16000)
    soundfile.write(tmp_path / "scaled.wav", tone * 32767, 16000, "FLOAT")
    soundfile.write(tmp_path / "opposite.wav", np.stack([tone, -tone], 1), 16000)
    names = sorted(path.name for path in tmp_path.glob("*.wav"))
    clips = [Clip(name, name) for name in names]
    for _ in range(2):  # the second time from the cache
        verdicts = check_audio(tmp_path, names, tmp_path)
        caplog.clear()
        counts = prepare.select_clips("eval", clips, verdicts).counts
        assert counts["warnings"] == {"silent": 3, "too loud": 1}
        lines = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert len(lines) == 2
        assert any("scaled.wav" in line and "32,766" in line for line in lines)
        assert any("opposite.wav" in line and "3 clips" in line for line in lines)


def test_unusable_save_folder(tmp_path):
    prepare.make_save_folder(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ManifestError, match=re.escape(str(tmp_path / "file"))):
        prepare.make_save_folder(tmp_path / "file")
