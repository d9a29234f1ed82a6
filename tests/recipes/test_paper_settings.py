"""The full settings of every recipe take a real step; rates are the official ones."""

import json
import re
import shutil
from pathlib import Path

import pytest

import eat
from eat.experiment.config import load_config
from eat.experiment.yaml_tree import placeholders, read_hyperpyyaml, read_tree
from eat.training.optim import warmup_cosine
from mini_corpora.audioset import AudioSetSizes, write_audioset
from mini_corpora.bank import load_bank

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
BLOCK = re.compile(r"blocks\.(\d+)\.")
ONE_STEP = (
    "--number_of_epochs 1 --steps_per_epoch 1 --batch_size 2 --log_interval 1 "
    "--grad_accumulation_factor 1"
).split()
FULL = sorted(
    path.relative_to(RECIPES).as_posix()
    for path in RECIPES.glob("*/hparams/*.yaml")
    if not path.stem.endswith(("_mini", "_evidence"))
)
CLASSES = {"AudioSet": 20, "ESC50": 10, "SpeechCommands": 10, "OwnData": 2}


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four clips of each subset: the base size takes a second or two per clip."""
    folder = tmp_path_factory.mktemp("four") / "AudioSet"
    folder.mkdir()
    bank = load_bank(ROOT / "tools" / "bank")
    write_audioset(bank, folder, seed=0, sizes=AudioSetSizes(4, 4, 4), workers=2)
    return folder


@pytest.fixture(scope="module")
def recordings(esc50, tmp_path_factory):
    """Six recordings of two classes."""
    folder = tmp_path_factory.mktemp("own") / "recordings"
    folder.mkdir()
    lines = ["file,label,split"]
    for i, clip in enumerate(sorted((esc50 / "audio").iterdir())[:6]):
        shutil.copy(clip, folder)
        lines.append(f"{clip.name},class{i % 2},{'eval' if i > 3 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def corpora(four, esc50, speech_commands, recordings):
    return {
        "AudioSet": four,
        "ESC50": esc50,
        "SpeechCommands": speech_commands,
        "OwnData": recordings,
    }


def check_step(output):
    """Check that one step was taken, with finite numbers."""
    records = [json.loads(line) for line in (output / "metrics.jsonl").open()]
    [step] = [record for record in records if record["kind"] == "step"]
    assert step["loss"] > 0 and step["grad_norm"] > 0 and step["skipped_batches"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("path", FULL)
def test_a_step_with_a_tiny_network(path, run_recipe, corpora, tmp_path):
    """All settings but those of the network's size are the file's."""
    recipe = path.split("/")[0]
    text = read_hyperpyyaml(RECIPES / path)
    text, presets = re.subn(r"preset: (base|large)", "preset: tiny", text)
    assert presets == 1
    (tmp_path / "tiny.yaml").write_text(re.sub(r"dim: \d+", "dim: 128", text))
    options = [*ONE_STEP, "--clones", 2]
    if "task: finetune" in text:
        classes = ["--num_classes", CLASSES[recipe]]
        options = [*ONE_STEP, *classes, "--pretrained", "none"]
    if path.endswith("as2m.yaml"):
        options += ["--weighted_draws", 4]
    output = tmp_path / "run"
    results = run_recipe(recipe, tmp_path / "tiny", corpora[recipe], output, *options)
    assert results["steps"] == 1 and results["clips_seen"] == 2
    check_step(output)


@pytest.mark.parametrize(
    ("path", "name", "tolerance"),
    [
        ("AudioSet/hparams/pretrain.yaml", "pretrain_base", 1e-6),
        ("AudioSet/hparams/finetune_as20k.yaml", "ft_as20k", 1e-6),
        # 144 epochs of whole steps: 299,952 of them.
        ("AudioSet/hparams/finetune_as2m.yaml", "ft_as2m", 2e-3),
        ("ESC50/hparams/finetune.yaml", "ft_esc50", 1e-6),
        ("SpeechCommands/hparams/finetune.yaml", "ft_spcv2", 1e-6),
    ],
)
def test_rates_are_the_official_ones(path, name, tolerance, finetune_parity):
    missing = placeholders(read_tree(RECIPES / path))
    settings = load_config(RECIPES / path, dict.fromkeys(missing, "none")).values
    official = finetune_parity.numbers[f"lr_{name}"]
    keys = ("lr", "warmup_steps", "total_steps", "min_lr")
    schedule = [float(settings[key]) for key in keys]
    for step, rate in official:
        if step == 400_000:  # the official schedule restarts there
            continue
        ours = warmup_cosine(step, *schedule)
        assert ours == pytest.approx(rate, rel=tolerance, abs=1e-12), step


@pytest.fixture(scope="module")
def pretrained(run_recipe, four, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "pretrain"
    run_recipe("AudioSet", "pretrain", four, run, *ONE_STEP, "--clones", 2)
    check_step(run)
    return run


@pytest.mark.slow
def test_pretraining(pretrained):
    config = json.loads((pretrained / "model" / "config.json").read_text())
    assert config["utterance_weight"] == 192.0
    assert config["encoder"]["dim"] == 768 and config["encoder"]["depth"] == 12
    assert config["frontend"]["num_frames"] == 1024


@pytest.mark.slow
def test_finetuning(run_recipe, four, pretrained, tmp_path):
    model = pretrained / "model"
    options = [*ONE_STEP, "--pretrained", model, "--num_classes", 20]
    results = run_recipe("AudioSet", "finetune_as20k", four, tmp_path, *options)
    check_step(tmp_path)
    assert results["steps"] == 1 and 0 < results["best"]["mAP"] <= 1
    student = eat.load_encoder(model).state_dict()
    tuned = eat.load_classifier(tmp_path / "model").encoder.state_dict()
    # It began there: Adam's first step moves a weight by its rate, low blocks least.
    for name, tensor in tuned.items():
        block = BLOCK.match(name)
        rate = 5e-5 * 0.65 ** (12 - int(block[1])) if block else 5e-5
        moved = (tensor - student[name]).abs().max()
        assert 0.5 * rate < moved < 1.5 * rate, name
