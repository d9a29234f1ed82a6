import json
import logging
import os
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
import soundfile

from eat.data.manifest import ManifestRow, read_labels
from eat.data.prepare import (
    Skipped,
    abbreviate,
    check_listed,
    find_corpus,
    list_files,
    write_prepared,
)
from eat.errors import ManifestError


def find(folder):
    return find_corpus(folder, "Corpus-1", "meta/list.csv")


def make_corpus(folder):
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "list.csv").touch()


def write_wav(path, samples):
    soundfile.write(path, np.zeros(samples), 16000)


def test_a_corpus_is_found_in_its_folder_and_in_its_parent(tmp_path):
    make_corpus(tmp_path / "Corpus-1")
    make_corpus(tmp_path / "any name")
    assert find(tmp_path / "Corpus-1") == ""
    assert find(tmp_path / "any name") == ""
    assert find(tmp_path) == "Corpus-1/"


def test_a_missing_corpus_is_one_clear_line(tmp_path):
    with pytest.raises(ManifestError, match="none: no such folder"):
        find(tmp_path / "none")
    with pytest.raises(ManifestError, match="no meta/list.csv in it or in Corpus-1/"):
        find(tmp_path)


@pytest.mark.parametrize("ending", ["zip", "gztar"])
def test_an_archive_is_named_with_the_command_that_unpacks_it(tmp_path, ending):
    make_corpus(tmp_path / "source" / "Corpus-1")
    data = tmp_path / "with space"
    data.mkdir()
    shutil.make_archive(data / "download", ending, tmp_path / "source", "Corpus-1")
    with pytest.raises(ManifestError, match="download.*: not unpacked yet") as error:
        find(data)
    command = str(error.value).partition("unpack it: ")[2].removesuffix(")")
    if ending == "zip" and not shutil.which("unzip"):  # not on every machine
        assert command.startswith("unzip -q ")
        zipfile.ZipFile(data / "download.zip").extractall(data)
    else:
        subprocess.run(command, shell=True, check=True)
    assert find(data) == "Corpus-1/"


def test_files_are_listed_in_order_without_hidden_and_deeper_ones(tmp_path):
    (tmp_path / "b" / "deeper").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    for name in ("b/2.wav", "b/1.wav", "a/3.txt", "b/.DS_Store", "b/deeper/4.wav"):
        (tmp_path / name).write_text("four")
    (tmp_path / "a" / "dangling.wav").symlink_to(tmp_path / "nothing")
    files, facts = list_files(tmp_path, ["b", "a", "absent"])
    assert files == ["a/3.txt", "b/1.wav", "b/2.wav"]
    assert (facts["files"], facts["bytes"]) == (3, 12)


@pytest.mark.parametrize("change", ["replace", "rename", "swap"])
def test_facts_change_with_the_files(tmp_path, change):
    (tmp_path / "1.wav").write_text("old")
    os.utime(tmp_path / "1.wav", (1, 1))
    os.utime(tmp_path, (1, 1))
    before = list_files(tmp_path, ["."])[1]
    assert before == list_files(tmp_path, ["."])[1]
    if change == "replace":  # in place, at the same length
        (tmp_path / "1.wav").write_text("new")
    elif change == "rename":
        (tmp_path / "1.wav").rename(tmp_path / "2.wav")
    else:
        (tmp_path / "2.wav").write_text("new")
        (tmp_path / "1.wav").unlink()
    assert list_files(tmp_path, ["."])[1] != before


def test_few_names_the_first_and_counts_the_others():
    assert abbreviate("abc", 3) == "a, b, c"
    assert abbreviate(range(12), 2) == "0, 1 and 10 more"


def test_listed_files_are_usable_or_skipped_with_a_reason(tmp_path):
    write_wav(tmp_path / "good.wav", 400)
    write_wav(tmp_path / "short.wav", 399)
    write_wav(tmp_path / "none.wav", 0)
    (tmp_path / "text.wav").write_text("a web page that says no")
    names = ["short.wav", "gone.wav", "good.wav", "none.wav", "text.wav"]
    listed = {name: (name[:-4], "train") for name in names}
    found = [name for name in names if (tmp_path / name).exists()]
    cache = tmp_path / "checked.csv"
    usable, skipped = check_listed(tmp_path, listed, found, cache, 400)
    assert {file: info.num_frames for file, info in usable.items()} == {"good.wav": 400}
    assert [(clip.id, clip.file, clip.subset) for clip in skipped] == [
        (name[:-4], name, "train") for name in names if name != "good.wav"
    ]
    starts = ["too short: 399 samples, 400 needed", "missing", "unreadable: 0 samples"]
    starts += ["unreadable: not readable as audio"]
    for clip, start in zip(skipped, starts, strict=True):
        assert clip.reason.startswith(start)


def test_results_are_written_and_left_out_files_named(tmp_path, caplog):
    skipped = [Skipped(f"{i}", f"audio/{i}.wav", "test", "missing") for i in range(7)]
    skipped.append(Skipped("x", "audio/x.wav", "test", "unreadable: 0 bytes"))
    row = ManifestRow("a", 1.0, "audio/a.wav", ("crying_baby",))
    with caplog.at_level(logging.WARNING):
        write_prepared(
            tmp_path, {"all": [row]}, ["dog", "crying_baby"], skipped, {"subsets": {}}
        )
    labels = read_labels(tmp_path / "labels.csv")
    assert labels.ids == ("dog", "crying_baby")
    assert labels.names == ("dog", "crying baby")
    assert json.loads((tmp_path / "summary.json").read_text()) == {"subsets": {}}
    assert "a,1.0000,$data_root/audio/a.wav,crying_baby" in (
        (tmp_path / "all.csv").read_text()
    )
    assert (tmp_path / "skipped.csv").read_text().count("\n") == 9
    first, second = caplog.messages
    assert first.startswith("7 files left out, missing: audio/0.wav, audio/1.wav")
    assert "and 2 more" in first
    assert second.startswith("1 files left out, unreadable: audio/x.wav (see ")
