"""Finding a corpus, and what is in its folder."""

import os
import re
import shutil
import subprocess
import zipfile

import pytest

from eat.data.corpus_folder import find_corpus, fingerprint, list_files
from eat.errors import ManifestError


def find(folder):
    return find_corpus(folder, "Corpus-1", "meta/list.csv")


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
    files = list_files(tmp_path, ["b", "a", "absent"])
    assert files == ["a/3.txt", "b/1.wav", "b/2.wav"]


@pytest.mark.parametrize("change", ["replace", "rename", "add", "remove"])
def test_fingerprint_changes_with_the_files(tmp_path, change):
    (tmp_path / "1.wav").write_text("old")
    os.utime(tmp_path / "1.wav", (1, 1))

    def checksum():
        return fingerprint(tmp_path, list_files(tmp_path, ["."]))

    before = checksum()
    assert before == checksum()
    if change == "replace":  # in place, with the same length
        (tmp_path / "1.wav").write_text("new")
    elif change == "rename":
        (tmp_path / "1.wav").rename(tmp_path / "2.wav")
    elif change == "add":
        (tmp_path / "2.wav").touch()
    else:
        (tmp_path / "1.wav").unlink()
    assert checksum() != before
