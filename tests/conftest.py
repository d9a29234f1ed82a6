"""Fixtures shared by all tests: the official code's numbers, a tiny corpus."""

import json
import os
import subprocess
import sys
from pathlib import Path

# Spinning threads make two tests on two cores slower than one after the other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from safetensors.torch import load_file

from eat.data.bank import load_bank
from eat.data.mini_audioset import AudioSetSizes, write_audioset

ROOT = Path(__file__).parents[1]
PARITY = ROOT / "tests" / "fixtures" / "parity"


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


@pytest.fixture(scope="session")
def audioset(tmp_path_factory):
    """24 balanced, 12 unbalanced and 12 evaluation clips."""
    folder = tmp_path_factory.mktemp("mini") / "AudioSet"
    folder.mkdir()
    bank = load_bank(ROOT / "tools" / "bank")
    write_audioset(bank, folder, seed=0, sizes=AudioSetSizes(24, 12, 12), workers=2)
    return folder


@pytest.fixture(scope="session")
def launch():
    """Run a script with arguments as from a shell, in one or several processes."""

    def run(script, *arguments, processes=1):
        launcher = ["-m", "torch.distributed.run", "--standalone"]
        launcher += [f"--nproc_per_node={processes}"]
        process = subprocess.Popen(
            [sys.executable, *launcher * (processes > 1), script, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, errors = process.communicate(timeout=180)
        except subprocess.TimeoutExpired:  # one waits for the other for good
            process.terminate()  # the launcher ends its own
            pytest.fail(f"does not end:\n{process.communicate()[1]}")
        assert process.returncode == 0, errors

    return run
