import unicodedata

import pytest

from eat.data.listed_files import ListedFiles, existing_path

NFC, NFD = (unicodedata.normalize(form, "é/ö.wav") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("on_disk", [NFC, NFD])
@pytest.mark.parametrize("name", [NFC, NFD])
@pytest.mark.parametrize("form", ["{}", "./{}", " {} ", ".\\{}", "\u200b{}"])
def test_a_name_in_another_spelling_finds_its_file(on_disk, name, form):
    if "\\" in form:
        name = name.replace("/", "\\")
    assert ListedFiles([on_disk, "other.wav"]).find(form.format(name)) == on_disk


def test_the_exact_name_is_preferred():
    files = ListedFiles([NFC, NFD, "a.wav", "A.wav"])
    for name in (NFC, NFD, "a.wav", "A.wav"):
        assert files.find(name) == name
    assert files.alike(NFC) == {NFC, NFD}


def test_case_counts_unless_one_file_is_left():
    assert ListedFiles(["Bed/A.wav", "b.wav"]).find("bed/a.WAV") == "Bed/A.wav"
    assert ListedFiles(["Bed/a.wav", "BED/a.wav"]).find("bed/a.wav") is None
    assert ListedFiles(["a.wav"]).find("b.wav") is None


@pytest.mark.parametrize("on_disk", [NFC, NFD])
@pytest.mark.parametrize("name", [NFC, NFD, "é\\ö.wav"])
def test_the_existing_path(tmp_path, on_disk, name):
    (tmp_path / on_disk).parent.mkdir()
    (tmp_path / on_disk).touch()
    assert (tmp_path / existing_path(tmp_path, name)).is_file()
    assert existing_path(tmp_path, "é/absent.wav") == "é/absent.wav"
