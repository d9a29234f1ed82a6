"""What the prepare scripts of all recipes have in common, on the mini corpora."""

import importlib
import logging
import re
import runpy
import sys
import tempfile
from pathlib import Path

import pytest

from eat.errors import ManifestError

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
