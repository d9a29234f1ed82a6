import json
import os

import numpy as np
import pytest
import soundfile

import eat.data.prepare as checking
from eat.audio.io import AudioInfo
from eat.data.prepare import (
    Skipped,
    check_audio,
    make_save_folder,
    reason_to_skip,
    up_to_date,
    write_skipped,
)
from eat.errors import AudioError, ManifestError


def write_wav(path, samples=1000, rate=16000):
    soundfile.write(path, np.zeros(samples), rate)


@pytest.fixture
def folder(tmp_path):
    """Two good files, one of them outside, and three bad ones."""
    root = tmp_path / "root"
    root.mkdir()
    write_wav(root / "a, b.wav", 1000, 16000)
    write_wav(tmp_path / "outside.flac", 500, 44100)
    (root / "empty.wav").touch()
    (root / "text.wav").write_text("a web page that says no")
    return root


@pytest.fixture
def files(tmp_path):
    return [
        "a, b.wav",
        str(tmp_path / "outside.flac"),
        "empty.wav",
        "text.wav",
        "no.wav",
    ]


@pytest.fixture
def opened(monkeypatch):
    """Paths whose headers are read."""
    paths = []
    inspect = checking.inspect_many

    def spy(given):
        paths.extend(os.path.basename(path) for path in given)
        return inspect(given)

    monkeypatch.setattr(checking, "inspect_many", spy)
    return paths


def test_each_file_gets_its_verdict(folder, files, tmp_path):
    verdicts = check_audio(folder, files, tmp_path / "checked.csv")
    assert list(verdicts) == files
    assert verdicts[files[0]] == AudioInfo(16000, 1000, 1)
    assert verdicts[files[1]] == AudioInfo(44100, 500, 1)
    reasons = [reason_to_skip(verdicts[file], file) for file in files]
    assert reasons[:2] == [None, None]
    assert reasons[2].startswith("unreadable: 0 bytes (")
    assert reasons[3].startswith("unreadable: not readable as audio")
    assert reasons[4] == "missing"


def test_short_files_are_told_by_their_samples():
    info = AudioInfo(16000, 9999, 1)
    assert reason_to_skip(info, "a.wav", 9999) is None
    expected = "too short: 9999 samples, 10000 needed"
    assert reason_to_skip(info, "a.wav", 10000) == expected


def test_good_files_are_opened_once(folder, files, tmp_path, opened):
    first = check_audio(folder, files, tmp_path / "checked.csv")
    opened.clear()
    second = check_audio(folder, files, tmp_path / "checked.csv")
    assert opened == ["empty.wav", "text.wav", "no.wav"]  # they may have been mended
    assert list(second) == files
    assert second[files[0]] == first[files[0]]
    assert str(second["text.wav"]) == str(first["text.wav"])


def test_a_changed_file_is_opened_again(folder, tmp_path, opened):
    cache = tmp_path / "checked.csv"
    check_audio(folder, ["a, b.wav"], cache)
    write_wav(folder / "a, b.wav", 2000)
    assert check_audio(folder, ["a, b.wav"], cache)["a, b.wav"].num_frames == 2000
    status = (folder / "a, b.wav").stat()
    os.utime(folder / "a, b.wav", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    check_audio(folder, ["a, b.wav"], cache)
    check_audio(folder, ["a, b.wav"], cache)  # the last line of the cache counts
    assert opened == ["a, b.wav"] * 3


def test_an_interrupted_check_goes_on(tmp_path, monkeypatch, opened):
    names = [f"{number}.wav" for number in range(300)]
    for name in names:
        write_wav(tmp_path / name, 10)
    spy = checking.inspect_many

    def interrupted(paths):
        yield from spy(paths[:130])
        raise KeyboardInterrupt

    cache = tmp_path / "checked.csv"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checking, "inspect_many", interrupted)
        check_audio(tmp_path, names, cache)
    assert len(cache.read_text().splitlines()) == 131
    opened.clear()
    assert len(check_audio(tmp_path, names, cache)) == 300
    assert opened == names[130:]


def test_a_line_torn_by_a_kill_is_forgotten(tmp_path, opened):
    cache = tmp_path / "checked.csv"
    names = ["a.wav", "b.wav"]
    for name in names:
        write_wav(tmp_path / name, 1000)
    check_audio(tmp_path, names, cache)
    whole = cache.read_text()
    cache.write_text(whole[: whole.index("1000", whole.index("b.wav")) + 2])
    opened.clear()
    assert check_audio(tmp_path, names, cache)["b.wav"].num_frames == 1000
    assert opened == ["b.wav"]
    assert cache.read_text() == whole


def test_batches_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "_FILES_AT_ONCE", 7)
    names = [f"{number}.wav" for number in range(20)]
    for number, name in enumerate(names):
        write_wav(tmp_path / name, number + 1)
    check_audio(tmp_path, names[::2], tmp_path / "checked.csv")
    verdicts = check_audio(tmp_path, [*names, "3.wav"], tmp_path / "checked.csv")
    assert [info.num_frames for info in verdicts.values()] == list(range(1, 21))


def test_a_file_name_that_is_not_utf8_is_reported(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    write_wav(tmp_path / "x.wav")
    os.rename(tmp_path / "x.wav", tmp_path / name)
    for _ in range(2):
        verdicts = check_audio(tmp_path, [name], tmp_path / "checked.csv")
        reason = reason_to_skip(verdicts[name], name)
        assert reason == "unreadable: its name is not UTF-8 (rename it)"
    write_skipped(tmp_path / "s.csv", [Skipped("a", name, "eval", reason)])
    assert "caf\\udce9.wav" in (tmp_path / "s.csv").read_text("utf-8")


@pytest.mark.parametrize("line", ["a.wav,x,1,16000,1,1,\n", "a.wav\n", '"a.wav,1\n'])
def test_a_damaged_cache_is_one_clear_line(tmp_path, line):
    cache = tmp_path / "checked.csv"
    cache.write_text(",".join(checking.CACHE_COLUMNS) + "\n" + line)
    with pytest.raises(ManifestError, match="checked.csv: damaged") as error:
        check_audio(tmp_path, ["a.wav"], cache)
    assert "\n" not in str(error.value)


def test_an_error_keeps_its_words(tmp_path):
    error = AudioError("root/a.wav: 0 bytes (copy it again)")
    assert reason_to_skip(error, "a.wav") == "unreadable: 0 bytes (copy it again)"


def test_results_are_up_to_date_until_something_changes(tmp_path):
    inputs = {"lists": {"a.csv": [1, 2.5]}, "files": (1, 2)}
    assert not up_to_date(tmp_path, inputs, [])
    (tmp_path / "summary.json").write_text(json.dumps({"inputs": inputs}))
    assert up_to_date(tmp_path, inputs, [])
    assert not up_to_date(tmp_path, inputs, ["m.csv"])
    (tmp_path / "m.csv").touch()
    assert up_to_date(tmp_path, inputs, ["m.csv"])
    assert not up_to_date(tmp_path, inputs | {"files": (1, 3)}, ["m.csv"])
    (tmp_path / "summary.json").write_text("{")
    assert not up_to_date(tmp_path, inputs, ["m.csv"])


def test_skipped_clips_are_written(tmp_path):
    write_skipped(tmp_path / "s.csv", [Skipped("a", "x/a.wav", "eval", "too, short")])
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines == ["id,file,subset,reason", 'a,x/a.wav,eval,"too, short"']


def test_a_save_folder_that_cannot_be_is_one_clear_line(tmp_path):
    make_save_folder(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ManifestError, match="file: cannot be written, File exists"):
        make_save_folder(tmp_path / "file")
