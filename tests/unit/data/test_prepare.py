"""What all prepare scripts share."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import soundfile

import eat.data.prepare as prepare
from eat.audio.io import AudioInfo
from eat.data.manifest import LabelSet, ManifestRow, read_labels
from eat.data.prepare import Clip, Selection, Skipped, check_audio
from eat.errors import ManifestError


def write_wav(path, samples=1000, rate=16000):
    soundfile.write(path, np.zeros(samples), rate)


# -- finding the corpus ------------------------------------------------------------


def find(folder):
    return prepare.find_corpus(folder, "Corpus-1", "meta/list.csv")


def make_corpus(folder):
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "list.csv").touch()


def test_corpus_is_found_in_its_folder_and_in_its_parent(tmp_path):
    make_corpus(tmp_path / "Corpus-1")
    make_corpus(tmp_path / "any name")
    assert find(tmp_path / "Corpus-1") == ""
    assert find(tmp_path / "any name") == ""
    assert find(tmp_path) == "Corpus-1/"


def test_missing_corpus(tmp_path):
    for folder, named in ((tmp_path / "none", "none"), (tmp_path, "meta/list.csv")):
        with pytest.raises(ManifestError, match=re.escape(named)) as error:
            find(folder)
        assert str(error.value).startswith(f"{folder}: ")


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "bztar"])
def test_archive_is_named_with_the_command_that_unpacks_it(tmp_path, kind):
    make_corpus(tmp_path / "source" / "Corpus-1")
    data = tmp_path / "with space"
    data.mkdir()
    archive = shutil.make_archive(
        data / "download", kind, tmp_path / "source", "Corpus-1"
    )
    with pytest.raises(ManifestError, match=re.escape(archive)) as error:
        find(data)
    command = re.search(r"((unzip|tar) -.*)\)", str(error.value)).group(1)
    if kind == "zip" and not shutil.which("unzip"):  # not on every machine
        zipfile.ZipFile(archive).extractall(data)
    else:
        subprocess.run(command, shell=True, check=True)
    assert find(data) == "Corpus-1/"


def test_an_archive_or_file_instead_of_a_folder(tmp_path):
    for name, fault in (("a.tgz", "tar -xf"), ("b.part", "download"), ("c", "a file")):
        (tmp_path / name).touch()
        with pytest.raises(ManifestError, match=f"{name}: .*{fault}"):
            find(tmp_path / name)


def test_files_are_listed_in_order_without_hidden_and_deeper_ones(tmp_path):
    (tmp_path / "b" / "deeper").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    for name in ("b/2.wav", "b/1.wav", "a/3.txt", "b/.DS_Store", "b/deeper/4.wav"):
        (tmp_path / name).touch()
    (tmp_path / "a" / "dangling.wav").symlink_to(tmp_path / "nothing")
    files = prepare.list_files(tmp_path, ["b", "a", "absent"])
    assert files == ["a/3.txt", "b/1.wav", "b/2.wav"]


@pytest.mark.parametrize("change", ["replace", "rename", "add", "remove"])
def test_fingerprint_changes_with_the_files(tmp_path, change):
    (tmp_path / "1.wav").write_text("old")
    os.utime(tmp_path / "1.wav", (1, 1))

    def fingerprint():
        return prepare.fingerprint(tmp_path, prepare.list_files(tmp_path, ["."]))

    before = fingerprint()
    assert before == fingerprint()
    if change == "replace":  # in place, with the same length
        (tmp_path / "1.wav").write_text("new")
    elif change == "rename":
        (tmp_path / "1.wav").rename(tmp_path / "2.wav")
    elif change == "add":
        (tmp_path / "2.wav").touch()
    else:
        (tmp_path / "1.wav").unlink()
    assert fingerprint() != before


def test_unusable_save_folder(tmp_path):
    prepare.make_save_folder(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ManifestError, match=re.escape(str(tmp_path / "file"))):
        prepare.make_save_folder(tmp_path / "file")


# -- checking audio ----------------------------------------------------------------


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


@pytest.fixture
def opened(monkeypatch):
    """Names of the files whose headers are read."""
    names, inspect = [], prepare.inspect_many

    def spy(paths):
        names.extend(os.path.basename(path) for path in paths)
        return inspect(paths)

    monkeypatch.setattr(prepare, "inspect_many", spy)
    return names


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
    spy = prepare.inspect_many

    def interrupted(paths):
        yield from spy(paths[:130])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare, "inspect_many", interrupted)
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
    monkeypatch.setattr(prepare, "_BATCH", 7)
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
    prepare.write_skipped(tmp_path / "s.csv", [Skipped("a", name, "eval", reason)])
    assert "caf\\udce9.wav" in (tmp_path / "s.csv").read_text("utf-8")


@pytest.mark.parametrize("line", ["a.wav,x,1,16000,1,1,\n", "a.wav\n", '"a.wav,1\n'])
def test_a_corrupt_cache(tmp_path, line):
    cache = tmp_path / "checked.csv"
    cache.write_text(",".join(prepare.CACHE_COLUMNS) + "\n" + line)
    with pytest.raises(ManifestError, match=re.escape(str(cache))):
        check_audio(tmp_path, ["a.wav"], tmp_path)


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
    def fail(data_folder, save_folder):
        raise ManifestError(f"{data_folder}: bad ({save_folder})")

    monkeypatch.setattr(sys, "argv", ["prepare", "here", "there"])
    prepare.run_command_line(lambda *folders: None, "Prepare.", "corpus")
    with pytest.raises(SystemExit) as error:
        prepare.run_command_line(fail, "Prepare.", "corpus")
    assert error.value.code == "error: here: bad (there)"


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


def test_a_cache_of_an_earlier_version_is_not_used(tmp_path):
    write_wav(tmp_path / "a.wav", 1000)
    cache = tmp_path / "checked.csv"
    cache.write_text("file,size,mtime,sample_rate,frames,channels,error\n")
    assert check_audio(tmp_path, ["a.wav"], tmp_path)["a.wav"].num_frames == 1000
    assert cache.read_text().splitlines()[0] == ",".join(prepare.CACHE_COLUMNS)
