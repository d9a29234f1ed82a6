"""Fixtures of the tests of whole runs."""

from pathlib import Path

import pytest

from mini_corpora.audioset import AudioSetSizes, write_audioset
from mini_corpora.bank import load_bank

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A corpus in AudioSet's layout that is small enough for runs of seconds."""
    folder = tmp_path_factory.mktemp("runs") / "AudioSet"
    folder.mkdir()
    bank = load_bank(ROOT / "tools" / "bank")
    write_audioset(bank, folder, 0, AudioSetSizes(48, 48, 12), workers=2)
    return folder
