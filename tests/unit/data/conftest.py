"""Fixtures of the tests of data preparation."""

import os

import pytest

from eat.data import audio_check


@pytest.fixture
def opened(monkeypatch):
    """Names of the files whose headers are read."""
    names, inspect = [], audio_check.inspect_many

    def spy(paths):
        names.extend(os.path.basename(path) for path in paths)
        return inspect(paths)

    monkeypatch.setattr(audio_check, "inspect_many", spy)
    return names
