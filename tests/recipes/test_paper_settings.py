"""The paper's own settings take a real step: base size, 10 s, every setting read."""

import json
import re
from pathlib import Path

import pytest

import eat
from eat.data.bank import load_bank
from eat.data.mini_audioset import AudioSetSizes, write_audioset

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "AudioSet"
BLOCK = re.compile(r"blocks\.(\d+)\.")
ONE_STEP = (
    "--number_of_epochs 1 --steps_per_epoch 1 --batch_size 2 --num_workers 0 "
    "--log_interval 1 --device cpu --precision fp32 --eval_precision fp32 "
    "--noprogressbar"
).split()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Four clips of each kind: base size takes a second or two for each."""
    folder = tmp_path_factory.mktemp("four") / "AudioSet"
    folder.mkdir()
    bank = load_bank(ROOT / "tools" / "bank")
    write_audioset(bank, folder, seed=0, sizes=AudioSetSizes(4, 4, 4), workers=2)
    return folder


@pytest.fixture(scope="module")
def train(launch, corpus):
    def run(name, output, *options):
        folders = ["--data_folder", corpus, "--output_folder", output]
        settings = RECIPE / "hparams" / f"{name}.yaml"
        launch(RECIPE / "train.py", settings, *folders, *ONE_STEP, *options)
        [step] = [r for r in records(output) if r["kind"] == "step"]
        assert step["loss"] > 0 and step["grad_norm"] > 0
        assert step["skipped_batches"] == 0

    return run


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


@pytest.fixture(scope="module")
def pretrained(train, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "pretrain"
    train("pretrain", run, "--clones", "2")
    return run


def test_pretraining(pretrained):
    config = json.loads((pretrained / "model" / "config.json").read_text())
    assert config["utterance_weight"] == 192.0
    assert config["encoder"]["dim"] == 768 and config["encoder"]["depth"] == 12
    assert config["frontend"]["num_frames"] == 1024


def test_finetuning(train, pretrained, tmp_path):
    model = pretrained / "model"
    train("finetune_as20k", tmp_path, "--pretrained", model, "--num_classes", "20")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["steps"] == 1 and 0 < results["best"]["mAP"] <= 1
    student = eat.load_encoder(model).state_dict()
    tuned = eat.load_classifier(tmp_path / "model").encoder.state_dict()
    # It began there: Adam's first step moves a weight by its rate, low blocks least.
    for name, tensor in tuned.items():
        block = BLOCK.match(name)
        rate = 5e-5 * 0.65 ** (12 - int(block[1])) if block else 5e-5
        moved = (tensor - student[name]).abs().max()
        assert 0.5 * rate < moved < 1.5 * rate, name
