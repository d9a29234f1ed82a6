"""Fixtures shared by all tests: the official code's numbers, tiny corpora, recipes."""

import json
import logging
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

# Spinning threads make two tests on two cores slower than one after the other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import speechbrain as sb
import torch
from hypothesis import HealthCheck, settings
from recipe_modules import load_recipe
from safetensors.torch import load_file
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.importutils import LazyModule

from eat.audio.frontend import LogMel
from eat.data.manifest import LabelSet
from eat.experiment.folder import start_experiment
from eat.interop.loading import load_classifier
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder
from eat.training.checkpointer import AtomicCheckpointer
from mini_corpora.audioset import AudioSetSizes, write_audioset
from mini_corpora.bank import load_bank
from mini_corpora.esc50 import ESC50Sizes, write_esc50
from mini_corpora.speech_commands import SpeechCommandsSizes, write_speech_commands

# The same examples in every run. HYPOTHESIS_PROFILE=search looks for new ones, for as
# long as the test's `max_examples` says; see CONTRIBUTING.md.
settings.register_profile(
    "repeat",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("search", settings.get_profile("repeat"), derandomize=False)
# Hypothesis asks every module for its file, which would import SpeechBrain's lazy ones.
LazyModule.__file__ = None
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

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


# -- tiny corpora ------------------------------------------------------------------


def corpus(tmp_path_factory, name, write, sizes):
    folder = tmp_path_factory.mktemp("mini") / name
    folder.mkdir()
    bank = load_bank(ROOT / "tools" / "bank")
    write(bank, folder, seed=0, sizes=sizes, workers=2)
    return folder


@pytest.fixture(scope="session")
def audioset(tmp_path_factory):
    """24 balanced, 12 unbalanced and 12 evaluation clips."""
    sizes = AudioSetSizes(24, 12, 12)
    return corpus(tmp_path_factory, "AudioSet", write_audioset, sizes)


@pytest.fixture(scope="session")
def esc50(tmp_path_factory):
    """One clip of each of ten classes in each of five folds."""
    return corpus(tmp_path_factory, "ESC-50-master", write_esc50, ESC50Sizes(1))


@pytest.fixture(scope="session")
def speech_commands(tmp_path_factory):
    """Ten words, each twice by two training, one validation and one test speaker."""
    sizes = SpeechCommandsSizes(2, 1, 1)
    name = "speech_commands_v0.02"
    return corpus(tmp_path_factory, name, write_speech_commands, sizes)


# -- recipes -----------------------------------------------------------------------


@pytest.fixture(scope="session", name="load_recipe")
def load_recipe_fixture():
    """Return a recipe's train.py as a module."""
    return load_recipe


@pytest.fixture(scope="session")
def run_recipe(load_recipe):
    """Call a recipe in this process, as train.py does; gives its results.json."""

    def run(name, settings, data, output, *options):
        path = ROOT / "recipes" / name / "hparams" / f"{settings}.yaml"
        folders = ["--data_folder", data, "--output_folder", output]
        cpu = "--device cpu --precision fp32 --eval_precision fp32 --noprogressbar"
        argv = [path, *folders, "--num_workers", 0, *cpu.split(), *options]
        with own_logging():
            hparams, run_opts = start_experiment([str(word) for word in argv])
            task = "test" if run_opts["test_only"] else hparams["task"]
            getattr(load_recipe(name), task)(hparams, run_opts)
        return json.loads((output / "results.json").read_text())

    return run


@contextmanager
def own_logging():
    """Undo what SpeechBrain takes over; and do not ask pip for all versions."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "excepthook", sys.excepthook)
        patch.setattr(sb.utils.logger, "get_environment_description", str)
        patch.setenv("SB_GLOBAL_SEED", "0")
        yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers, root.level = handlers, level


FRAMES, CLASSES = 64, 3
NOTHING = {
    "roll": False,
    "noise": False,
    "mixup_alpha": 0.0,
    "mixup_probability": 0.0,
    "spec_augment_ratio": 0.0,
    "label_smoothing": 0.0,
}


@pytest.fixture(scope="session")
def finetune_brain():
    """Make a recipe's fine-tuning Brain with a network of two small blocks."""

    # Imported late: eat.experiment silences what this module prints.
    from speechbrain.utils.train_logger import FileTrainLogger

    def make(brain_class, folder, epochs=1, run_opts=None, **changed):
        torch.manual_seed(1)
        encoder = EATEncoder(dim=16, depth=2, num_heads=2, max_frames=FRAMES)
        classifier, counter = EATClassifier(encoder, CLASSES), EpochCounter(epochs)
        hparams = {
            "seed": 1,
            "output_folder": str(folder),
            "lr": 0.01,
            "min_lr": 0.0,
            "scale_min_lr": True,
            "warmup_steps": 0,
            "total_steps": 100,
            "batch_size": 2,
            "steps_per_epoch": 2,
            "num_workers": 0,
            "log_interval": 1,
            "weight_decay": 0.05,
            "decay_vectors": True,
            "layer_decay": 0.5,
            "keep_checkpoints": 1,
            "keep_every_epochs": 0,
            "max_unreadable_share": 0.01,
            "tensorboard": False,
            "wandb": "none",
            "epoch_counter": counter,
            "train_logger": FileTrainLogger(str(folder / "train_log.txt")),
            **NOTHING,
            **changed,
        }
        recoverables = {"classifier": classifier, "epoch_counter": counter}
        frontend = LogMel(-4.268, 4.569, FRAMES)
        brain = brain_class(
            modules={"frontend": frontend, "classifier": classifier},
            opt_class=torch.optim.AdamW,
            hparams=hparams,
            run_opts={"device": "cpu", "noprogressbar": True, **(run_opts or {})},
            checkpointer=AtomicCheckpointer(folder / "save", recoverables),
        )
        brain.label_set = LabelSet(("/m/a", "/m/b", "/m/c"), ("a", "b", "c"))
        return brain

    return make


@pytest.fixture(scope="session")
def official_classifier():
    """The classifier whose numbers the fixture ``finetune`` holds."""
    return load_classifier(PARITY / "official_finetuned.pt")


@pytest.fixture
def call_order(monkeypatch):
    """Watch functions of a module: gives the list of their names as they are called."""

    def watch(module, *names):
        called = []
        for name in names:
            original = getattr(module, name)

            def watched(*args, name=name, original=original):
                called.append(name)
                return original(*args)

            monkeypatch.setattr(module, name, watched)
        return called

    return watch


@pytest.fixture
def run_sh(tmp_path):
    """Call a recipe's run.sh with a Python that only says how it was called."""

    def run(recipe, *options):
        python = tmp_path / "python"
        python.write_text('#!/usr/bin/env bash\necho "$@"\n')
        python.chmod(0o755)
        return subprocess.run(
            ["bash", ROOT / "recipes" / recipe / "run.sh", *options],
            env={**os.environ, "PYTHON": str(python)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture(scope="session")
def run_code():
    """Run Python code in a process of its own, after a command if given; must succeed.

    Returns its standard output and error.
    """

    def run(code, *arguments, command=()):
        answer = subprocess.run(
            [*command, sys.executable, "-c", code, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout, answer.stderr

    return run


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
