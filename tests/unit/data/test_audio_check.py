"""Audio files are checked once, and again when they change."""

import os
import re

import numpy as np
import pytest
import soundfile

from eat.audio.io import AudioInfo
from eat.data import audio_check
from eat.data.audio_check import check_audio
from eat.data.prepare import Skipped, write_skipped
from eat.errors import ManifestError


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
    (root / "text.wav").write_text("<html>")
    return root


@pytest.fixture
def files(tmp_path):
    outside = str(tmp_path / "outside.flac")
    return ["a, b.wav", outside, "empty.wav", "text.wav", "no.wav"]


def test_each_file_gets_its_verdict(folder, files, tmp_path):
    verdicts = check_audio(folder, files, tmp_path)
    assert list(verdicts) == files
    assert verdicts[files[0]] == AudioInfo(16000, 1000, 1)
    assert verdicts[files[1]] == AudioInfo(44100, 500, 1)
    for name in ("empty.wav", "text.wav"):
        assert re.match(r"unreadable: \S", verdicts[name])
        assert name not in verdicts[name]  # the path has its own column
    assert verdicts["no.wav"] == "missing"


def test_relative_folders_leave_no_path_in_a_reason(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    verdicts = check_audio(folder.parent / "root" / "..", ["root/empty.wav"], tmp_path)
    assert "empty.wav" not in verdicts["root/empty.wav"]
    assert "empty.wav" not in check_audio(".", ["empty.wav"], tmp_path)["empty.wav"]


def test_good_files_are_opened_once(folder, files, tmp_path, opened):
    first = check_audio(folder, files, tmp_path)
    opened.clear()
    assert check_audio(folder, files, tmp_path) == first
    assert opened == ["empty.wav", "text.wav", "no.wav"]  # they may be repaired


def test_a_changed_file_is_opened_again(folder, tmp_path, opened):
    check_audio(folder, ["a, b.wav"], tmp_path)
    write_wav(folder / "a, b.wav", 2000)
    assert check_audio(folder, ["a, b.wav"], tmp_path)["a, b.wav"].num_frames == 2000
    status = (folder / "a, b.wav").stat()
    os.utime(folder / "a, b.wav", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    check_audio(folder, ["a, b.wav"], tmp_path)
    check_audio(folder, ["a, b.wav"], tmp_path)  # the last line of the cache counts
    assert opened == ["a, b.wav"] * 3


def test_an_interrupted_check_resumes(tmp_path, monkeypatch, opened):
    names = [f"{number}.wav" for number in range(300)]
    for name in names:
        write_wav(tmp_path / name, 10)
    spy = audio_check.inspect_many

    def interrupted(paths):
        yield from spy(paths[:130])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(audio_check, "inspect_many", interrupted)
        check_audio(tmp_path, names, tmp_path)
    assert len((tmp_path / "checked.csv").read_text().splitlines()) == 131
    opened.clear()
    assert len(check_audio(tmp_path, names, tmp_path)) == 300
    assert opened == names[130:]


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path, opened):
    cache, names = tmp_path / "checked.csv", ["a.wav", "b.wav"]
    for name in names:
        write_wav(tmp_path / name, 1000)
    check_audio(tmp_path, names, tmp_path)
    complete = cache.read_text()
    cache.write_text(complete[: complete.index("1000", complete.index("b.wav")) + 2])
    opened.clear()
    assert check_audio(tmp_path, names, tmp_path)["b.wav"].num_frames == 1000
    assert opened == ["b.wav"]
    assert cache.read_text() == complete


def test_batches_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_check, "_BATCH", 7)
    names = [f"{number}.wav" for number in range(20)]
    for number, name in enumerate(names):
        write_wav(tmp_path / name, number + 1)
    check_audio(tmp_path, names[::2], tmp_path)
    verdicts = check_audio(tmp_path, [*names, "3.wav"], tmp_path)
    assert [info.num_frames for info in verdicts.values()] == list(range(1, 21))


def test_a_file_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    write_wav(tmp_path / "x.wav")
    os.rename(tmp_path / "x.wav", tmp_path / name)
    for _ in range(2):
        reason = check_audio(tmp_path, [name], tmp_path)[name]
        assert reason.startswith("unreadable: ") and "UTF-8" in reason
    write_skipped(tmp_path / "s.csv", [Skipped("a", name, "eval", reason)])
    assert "caf\\udce9.wav" in (tmp_path / "s.csv").read_text("utf-8")


@pytest.mark.parametrize("line", ["a.wav,x,1,16000,1,1,\n", "a.wav\n", '"a.wav,1\n'])
def test_a_corrupt_cache(tmp_path, line):
    cache = tmp_path / "checked.csv"
    cache.write_text(",".join(audio_check.COLUMNS) + "\n" + line)
    with pytest.raises(ManifestError, match=re.escape(str(cache))):
        check_audio(tmp_path, ["a.wav"], tmp_path)


def test_a_cache_of_an_earlier_version_is_not_used(tmp_path):
    write_wav(tmp_path / "a.wav", 1000)
    cache = tmp_path / "checked.csv"
    cache.write_text("file,size,mtime,sample_rate,frames,channels,error\n")
    assert check_audio(tmp_path, ["a.wav"], tmp_path)["a.wav"].num_frames == 1000
    assert cache.read_text().splitlines()[0] == ",".join(audio_check.COLUMNS)
