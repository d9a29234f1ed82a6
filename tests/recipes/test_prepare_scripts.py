"""What the prepare scripts of all recipes have in common, on the mini corpora."""

import importlib
import logging
import re
import runpy
import sys
import tempfile
from pathlib import Path

import pytest

from eat.data import check_parts
from eat.errors import ManifestError
from eat.utils.parts import Part

RECIPES = Path(__file__).parents[2] / "recipes"
SCRIPTS = {
    "AudioSet": ("audioset_prepare", "prepare_audioset", "audioset"),
    "ESC50": ("esc50_prepare", "prepare_esc50", "esc50"),
    "OwnData": ("own_data_prepare", "prepare_own_data", "speech_commands"),
    "SpeechCommands": (
        "speech_commands_prepare",
        "prepare_speech_commands",
        "speech_commands",
    ),
}


@pytest.fixture(params=SCRIPTS)
def script(request):
    """The module of a prepare script, its function, and a corpus for it."""
    module, function, corpus = SCRIPTS[request.param]
    sys.path.append(str(RECIPES / request.param))
    module = importlib.import_module(module)
    return module, getattr(module, function), request.getfixturevalue(corpus)


def test_a_second_run_has_nothing_to_do(script, tmp_path, monkeypatch):
    module, prepare, corpus = script
    prepare(corpus, tmp_path)
    before = (tmp_path / "summary.json").stat().st_mtime_ns
    monkeypatch.setattr(module, "check_audio", None)  # calling it would fail
    prepare(corpus, tmp_path)
    assert (tmp_path / "summary.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("parts", [2, 9])
def test_parts_equal_the_whole(script, tmp_path, monkeypatch, parts):
    _, prepare, corpus = script
    monkeypatch.setattr(check_parts, "BLOCK", 11)
    prepare(corpus, tmp_path / "one")
    for number in range(parts, 0, -1):
        assert not (tmp_path / "parts" / "summary.json").exists()
        prepare(corpus, tmp_path / "parts", part=Part(number, parts))
    one, joined = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        for folder in ("one", "parts")
    )
    assert joined == one


def test_a_merge_names_missing_parts(script, tmp_path, monkeypatch):
    module, _, corpus = script
    arguments = [module.__file__, str(corpus), str(tmp_path / "save"), "--merge", "3"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="^error: .*part.* 1.* of 3.*--part 1/3"):
        runpy.run_path(module.__file__, run_name="__main__")
    assert not list((tmp_path / "save").iterdir())


def test_an_unwritable_save_folder_is_found_before_any_work(
    script, tmp_path, monkeypatch
):
    module, prepare, corpus = script
    monkeypatch.setattr(module, "check_audio", None)  # calling it would fail
    (tmp_path / "file").touch()
    for save in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ManifestError, match=re.escape(f"{save}: ")):
            prepare(corpus, save)

    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    # Permissions do not apply to root, who may run the tests.
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(ManifestError, match=re.escape(f"{tmp_path / 'save'}: ")):
        prepare(corpus, tmp_path / "save")


def test_the_command_line(script, tmp_path, monkeypatch, caplog):
    module, _, corpus = script
    save = tmp_path / "save"
    monkeypatch.setattr(sys, "argv", [module.__file__, str(corpus), str(save)])
    with caplog.at_level(logging.INFO):
        runpy.run_path(module.__file__, run_name="__main__")
    assert (save / "summary.json").exists()
    # listed, missing, skipped, used
    counts = r"\w+: (\d+) clips .*\b0 missing.*\b0 skipped.*\b\1 used"
    assert any(re.match(counts, line) for line in caplog.messages)
    monkeypatch.setattr(sys, "argv", [module.__file__, str(corpus / "no"), str(save)])
    with pytest.raises(SystemExit, match=re.escape(f"error: {corpus / 'no'}: ")):
        runpy.run_path(module.__file__, run_name="__main__")
