"""Independent jobs that check the audio of a corpus, killed, repeated and merged."""

import logging
import re

import numpy as np
import pytest
import soundfile

from eat.data import audio_check, check_parts
from eat.data.audio_check import check_audio
from eat.data.check_parts import check_part
from eat.data.prepare import write_results
from eat.errors import ManifestError
from eat.utils.parts import WHOLE, Part

FILES = [f"{number}.wav" for number in (*range(10), "missing")]
INPUTS = {"files": "a"}


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Eleven files in four blocks, one of them unreadable and one missing."""
    monkeypatch.setattr(check_parts, "BLOCK", 3)
    root = tmp_path / "my corpus"
    root.mkdir()
    for number, name in enumerate(FILES[:-1], 1):
        soundfile.write(root / name, np.zeros(number * 1000), 16000)
    (root / "4.wav").write_text("<html>")
    (tmp_path / "one").mkdir()
    (tmp_path / "parts").mkdir()
    return root


@pytest.fixture
def check(corpus, tmp_path):
    """Run a part; return whether all are complete."""

    def run(number, total, inputs=INPUTS):
        part = Part(number, total)
        return check_part(corpus, FILES, tmp_path / "parts", inputs, part)

    return run


def joined(corpus, folder):
    """What one process finds, and the file that it writes."""
    verdicts = check_audio(corpus, FILES, folder)
    return verdicts, (folder / "checked.csv").read_bytes()


@pytest.mark.parametrize("total", [2, 3, 4, 30])
def test_parts_equal_one_process(corpus, check, tmp_path, opened, total):
    """In any order; with 30 parts, most have no files."""
    one = joined(corpus, tmp_path / "one")
    opened.clear()
    order = [*range(2, total + 1), 1]
    assert [check(number, total) for number in order] == [False] * (total - 1) + [True]
    assert check(0, total)
    assert joined(corpus, tmp_path / "parts") == one
    assert sorted(opened) == sorted(FILES)  # each once


def test_one_process_needs_no_blocks(corpus, tmp_path):
    assert check_part(corpus, FILES, tmp_path / "one", INPUTS, WHOLE)
    assert not list((tmp_path / "one").iterdir())


def test_missing_parts_are_named(check, tmp_path, caplog):
    with pytest.raises(ManifestError, match=r"parts 1-3 of 3 .*--part 1/3\)"):
        check(0, 3)
    with caplog.at_level(logging.INFO):
        check(2, 3)
    assert "parts 1,3 of 3 are missing" in caplog.text
    check(1, 3)
    where = re.escape(str(tmp_path / "parts"))
    with pytest.raises(ManifestError, match=rf"^{where}: part 3 of 3 .*--part 3/3\)"):
        check(0, 3)


def test_a_killed_part_continues_with_its_next_block(check, monkeypatch, opened):
    spy = audio_check.inspect_many

    def killed(paths):
        if "6.wav" in paths[0]:
            raise KeyboardInterrupt
        return spy(paths)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(audio_check, "inspect_many", killed)
        check(1, 2)
    assert opened == FILES[:3]
    assert not check(1, 2)
    assert opened == [*FILES[:3], *FILES[6:9]]
    assert not check(1, 2) and len(opened) == 6  # a repeated part has nothing to do


def test_another_number_of_parts_or_one_process_can_go_on(
    corpus, check, tmp_path, opened
):
    one = joined(corpus, tmp_path / "one")
    opened.clear()
    check(1, 2)
    assert not check(2, 3) and check(4, 4)  # block 1, then 3
    assert joined(corpus, tmp_path / "parts") == one
    assert len(opened) == len(FILES)


def test_a_process_uses_what_some_parts_have_found(corpus, check, tmp_path, opened):
    expected, _ = joined(corpus, tmp_path / "one")
    check(1, 2)
    opened.clear()
    verdicts, _ = joined(corpus, tmp_path / "parts")
    assert verdicts == expected and opened == [*FILES[3:6], *FILES[9:]]
    log = (tmp_path / "parts" / "checked.csv").read_text()
    assert all(name in log for name in FILES)  # the blocks are not needed any more


def test_parts_of_another_corpus_are_refused(check, tmp_path):
    check(1, 3)
    for number in (0, 2):
        with pytest.raises(ManifestError, match="checked_parts: "):
            check(number, 3, {"files": "b"})
    assert not check(2, 3)


def test_a_file_that_changed_after_its_part_is_checked_again(
    corpus, check, tmp_path, opened
):
    check(1, 2)
    check(2, 2)
    soundfile.write(corpus / "7.wav", np.zeros(77), 16000)
    opened.clear()
    verdicts, _ = joined(corpus, tmp_path / "parts")
    assert verdicts["7.wav"].num_frames == 77 and opened == ["7.wav"]


def test_a_late_part_leaves_nothing_behind(check, tmp_path, monkeypatch):
    """While it checks, the same part has run elsewhere, and all have been joined."""
    write = check_parts.write_checked

    def late(path, checked):
        write(path, checked)
        write_results(tmp_path / "parts", INPUTS, {}, None)

    check(1, 2)
    monkeypatch.setattr(check_parts, "write_checked", late)
    assert not check(2, 2)
    assert not (tmp_path / "parts" / "checked_parts").exists()


def test_a_damaged_block_is_named(corpus, check, tmp_path):
    check(1, 1000)
    [block] = (tmp_path / "parts" / "checked_parts").iterdir()
    block.write_text(block.read_text() + "4.wav,1\n")
    with pytest.raises(ManifestError, match=re.escape(str(block))):
        check_audio(corpus, FILES, tmp_path / "parts")
