"""Own data: the paths in tables, however they are spelled."""

import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[2] / "recipes" / "OwnData"))
from own_data_paths import RecordingFinder  # noqa: E402

FILES = [f"{name}/{i}.wav" for name in ("dog", "cat") for i in range(4)]

SPELLINGS = {
    "dog/0.wav": "dog/0",
    "dog\\0.wav": "dog/0",
    ".\\dog\\0.wav": "dog/0",
    "./dog//0.wav": "dog/0",
    "dog/../dog/0.wav": "dog/0",
    "DOG/0.WAV": "dog/0",
    "dog/0": "dog/0",
    "data/dog/0.wav": "dog/0",
    "/another/machine/dog/0.wav": "dog/0",
    "C:\\Users\\me\\data\\dog\\0.wav": "dog/0",
    "file:///x/dog/0.wav": "dog/0",
    "a%20b/c.wav": "a b/c",
    "a b/c.wav": "a b/c",
    "c": "a b/c",
    "c.wav": "a b/c",
    "b/d.wav": "deep/b/d",
    "abcdefghijk": "yt/Yabcdefghijk",
    "site_30-40": "yt/site_30.0-40.0",
    "site": "yt/site_30.0-40.0",
    unicodedata.normalize("NFD", "é.wav"): "é",
    "..\\meta\\out.wav": "OUT",
    "{tmp}/meta/out.wav": "OUT",
    "{tmp}/data/dog/0.wav": "dog/0",
    "out.wav": "OUT",  # beside the table
}
UNUSED = {
    "0": "ambiguous",
    "0.wav": "ambiguous",
    "bird/0.wav": "missing",
    "dog/9.wav": "missing",
    "site_40-50": "missing",
    "/x/y/0.wav": "missing",
    "dog": "a folder",
    "../data": "a folder",
    ".hidden.wav": "hidden file",
    "notes.txt": "not an audio file",
    "../meta/notes.txt": "not an audio file",
}


@pytest.fixture(scope="module")
def finder(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("paths")
    files = [*FILES, "a b/c.wav", "deep/b/d.wav", "yt/Yabcdefghijk.wav", "é.wav"]
    files.append("yt/site_30.0-40.0.wav")
    others = ("meta/out.wav", "meta/notes.txt", "data/notes.txt", "data/.hidden.wav")
    for file in (*others, *(f"data/{file}" for file in files)):
        (tmp / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp / file).touch()
    return RecordingFinder(tmp / "data", tmp / "meta", files), tmp


@pytest.mark.parametrize("text", SPELLINGS)
def test_spellings_of_paths(finder, text):
    finder, tmp = finder
    found, fault = finder.find(text.format(tmp=tmp))
    out = SPELLINGS[text] == "OUT"
    expected = str(tmp / "meta" / "out.wav") if out else f"{SPELLINGS[text]}.wav"
    assert (found, fault) == (expected, None)


@pytest.mark.parametrize("text", UNUSED)
def test_reasons_why_a_path_is_not_used(finder, text):
    finder, _ = finder
    found, fault = finder.find(text)
    assert fault and fault.startswith(UNUSED[text])


PART = st.text(st.sampled_from("ab.é%_-1 \\"), min_size=1, max_size=4)


@settings(max_examples=200)
@given(st.lists(st.lists(PART, min_size=1, max_size=3).map("/".join), unique=True))
def test_a_listed_path_is_found_as_written(tmp_path_factory, names):
    """Whatever else there is: the literal path has priority."""
    files = [f"{name}.wav" for name in names]
    files = [f for f in files if not {".", ".."} & {*f.split("/")}]
    folder = Path("/nonexistent")
    finder = RecordingFinder(folder, folder, files)
    for file in files:
        assert finder.find(file) == (file, None)
