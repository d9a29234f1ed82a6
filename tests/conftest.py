"""Fixtures shared by all tests: the official code's numbers."""

import json
import os
from pathlib import Path

# Spinning threads make two tests on two cores slower than one after the other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from safetensors.torch import load_file

PARITY = Path(__file__).parent / "fixtures" / "parity"


class Parity:
    """Numbers (`.json`) and tensors (`.safetensors`) of one parity fixture."""

    def __init__(self, name):
        self.numbers = json.loads((PARITY / f"{name}.json").read_text())
        self.tensors = load_file(PARITY / f"{name}.safetensors")

    def __getitem__(self, name):
        return self.tensors[name]


@pytest.fixture(scope="session")
def parity_folder():
    return PARITY


@pytest.fixture(scope="session")
def pretrain_parity():
    return Parity("pretrain")


@pytest.fixture(scope="session")
def finetune_parity():
    return Parity("finetune")


@pytest.fixture(scope="session")
def misc_parity():
    return Parity("misc")
