"""Fixtures shared by the tests of checkpoints."""

import pytest

from eat.errors import CheckpointError


@pytest.fixture
def official(parity_folder):
    return parity_folder / "official_pretrain.pt"


@pytest.fixture
def official_finetuned(parity_folder):
    return parity_folder / "official_finetuned.pt"


@pytest.fixture
def refusal():
    """Return a checkpoint error, which is one line that begins with the path."""

    def refuse(load, *arguments):
        with pytest.raises(CheckpointError) as caught:
            load(*arguments)
        message, path = str(caught.value), str(arguments[-1])
        assert message.startswith(path) and "\n" not in message
        return message.removeprefix(path)

    return refuse
