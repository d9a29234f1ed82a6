"""Fixtures shared by the tests of the command line."""

import numpy as np
import pytest
import soundfile
import torch

from eat import cli
from eat.interop.pretrained import save_model
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder

RATE = 16_000
LABELS = ["Dog", "Cat", "Rain, heavy", "Wind", "Käfer"]
FRONTEND = {"mean": -4.268, "std": 4.569, "num_frames": 64}


@pytest.fixture(scope="session")
def tagger(tmp_path_factory):
    """A folder with a small classifier."""
    torch.manual_seed(0)
    encoder = EATEncoder(dim=16, depth=2, num_heads=2, max_frames=64)
    classifier = EATClassifier(encoder, len(LABELS))
    torch.nn.init.normal_(classifier.head.weight)
    config = {"kind": "classifier", **classifier.config, "frontend": FRONTEND}
    config |= {"labels": LABELS, "multi_label": True, "step": 1200}
    folder = tmp_path_factory.mktemp("tagger") / "model"
    save_model(folder, config, classifier.eval())
    return folder


@pytest.fixture
def sounds(tmp_path):
    """A folder with eight recordings of half a second, in two folders."""
    for number in range(8):
        random = np.random.default_rng(number)
        wav = random.normal(size=RATE // 2) * 0.05
        wav += 0.3 * np.sin(np.arange(len(wav)) * (number + 1) / 20)
        path = tmp_path / "sounds" / str(number % 2) / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wav, RATE)
    (tmp_path / "sounds" / "notes.txt").write_text("no sound")
    (tmp_path / "sounds" / ".hidden.wav").write_text("no sound")
    return tmp_path / "sounds"


@pytest.fixture
def eat_command(capsys):
    """Run the command `eat` in this process: status, stdout and stderr."""

    def run(*arguments):
        status, message = 0, ""
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        if isinstance(status, str):  # what Python prints as it exits
            status, message = 1, f"{status}\n"
        out, err = capsys.readouterr()
        return status, out, err + message

    return run
