"""Files, folders and manifests as one list of clips with unique ids."""

import os
import sys

import pytest

from eat.data.manifest import ManifestRow, write_manifest
from eat.errors import AudioError, ManifestError
from eat.inference.clip_list import list_clips


@pytest.fixture
def sounds(tmp_path):
    """Folders with audio, hidden files and other files."""
    names = ["b.WAV", "a.wav", "sub/c.flac", "sub/deep/d.mp3", "sub/notes.txt"]
    names += [".hidden.wav", ".git/e.wav", "sub/.cache/f.wav", "ä, ö.ogg"]
    for name in names:
        path = tmp_path / "sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "sounds"


def paths(found):
    return [found.path(row) for row in range(len(found.clips))]


def test_a_folder_is_searched(sounds, caplog):
    found = list_clips([sounds])
    ids = ["a.wav", "b.WAV", "sub/c.flac", "sub/deep/d.mp3", "ä, ö.ogg"]
    assert [*found.clips.ids] == ids
    assert paths(found) == [str(sounds / name) for name in ids]
    assert f"{sounds}: 3 hidden" in caplog.text


def test_links_to_folders_are_followed_once(sounds):
    (sounds / "sub" / "loop").symlink_to(sounds)
    (sounds.parent / "linked").symlink_to(sounds)
    assert len(list_clips([sounds]).clips) == 5
    assert len(list_clips([sounds.parent / "linked"]).clips) == 5


def test_files_are_listed_once_with_unique_ids(sounds, monkeypatch):
    found = list_clips([sounds / "sub" / "c.flac", sounds / "a.wav"])
    assert [*found.clips.ids] == ["c.flac", "a.wav"]
    found = list_clips([sounds / "sub" / "c.flac", sounds, sounds / "a.wav"])
    assert len(found.clips) == 5 and found.clips.ids[0] == "c.flac"
    (sounds / "sub" / "a.wav").touch()
    monkeypatch.chdir(sounds.parent)
    found = list_clips(["sounds/sub", "sounds/a.wav"])
    assert [*found.clips.ids] == [
        *("sounds/sub/a.wav", "sounds/sub/c.flac", "sounds/sub/deep/d.mp3"),
        "sounds/a.wav",
    ]
    assert paths(found)[-1] == str(sounds / "a.wav")


def test_manifests_and_files_are_mixed(sounds, tmp_path):
    rows = [ManifestRow("one", 1.0, "a.wav"), ManifestRow("two", 1.0, "/x/y.wav")]
    write_manifest(tmp_path / "m.csv", rows)
    alone = list_clips([tmp_path / "m.csv"], sounds)
    assert [*alone.clips.ids] == ["one", "two"]
    assert paths(alone) == [str(sounds / "a.wav"), "/x/y.wav"]
    mixed = list_clips([tmp_path / "m.csv", sounds / "b.WAV"], sounds)
    assert [*mixed.clips.ids] == ["one", "two", "b.WAV"]
    assert paths(mixed) == [*paths(alone), str(sounds / "b.WAV")]
    write_manifest(tmp_path / "n.csv", [ManifestRow("one", 1.0, "b.WAV")])
    with pytest.raises(ManifestError, match="^one: "):
        list_clips([tmp_path / "m.csv", tmp_path / "n.csv"], sounds)
    with pytest.raises(ManifestError, match="m.csv: .*--data_root"):
        list_clips([tmp_path / "m.csv"])


def test_the_checksum_is_of_ids_and_paths(sounds, tmp_path):
    write_manifest(tmp_path / "m.csv", [ManifestRow("one", 1.0, "a.wav")])
    here, moved = (list_clips([tmp_path / "m.csv"], root) for root in (sounds, "/x"))
    assert here.checksum() == moved.checksum()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.wav").touch()
    other = list_clips([tmp_path / "other"])
    assert other.checksum() != list_clips([sounds / "a.wav"]).checksum()


def test_a_folder_without_audio_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(AudioError, match=f"{tmp_path}: .* 1 "):
        list_clips([tmp_path])


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 elsewhere")
def test_a_name_that_is_no_utf8_fails_alone(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.wav"
    open(name, "w").close()
    (tmp_path / "a.wav").touch()
    found = list_clips([tmp_path])
    assert [os.fsencode(clip) for clip in found.clips.ids] == [b"a.wav", b"\xff.wav"]
    assert os.fsencode(paths(found)[1]) == name
