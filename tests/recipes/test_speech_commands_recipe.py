"""The Speech Commands recipe: loss, augmentations, the tested epoch, run.sh."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from speechbrain import Stage

import eat
from eat.audio.augment import mix_with_flipped
from eat.data.dataset import audio_dataset, collate
from eat.data.manifest import read_labels
from eat.errors import CheckpointError, ExperimentError

NAME = "SpeechCommands"
RECIPE = Path(__file__).parents[2] / "recipes" / NAME
SHORT = "--steps_per_epoch 2 --batch_size 4 --log_interval 2"
AUGMENTATIONS = ["roll_and_gain", "noise_and_shift", "mixup", "spec_augment"]


@pytest.fixture(scope="module")
def recipe(load_recipe):
    return load_recipe(NAME)


@pytest.fixture
def brain(recipe, finetune_brain, tmp_path):
    changed = {"roll": True, "noise": True, "spec_augment_ratio": 0.5}
    mixing = {"mixup_alpha": 2.0, "mixup_probability": 1.0}
    return finetune_brain(
        recipe.SpeechCommandsFinetuneBrain, tmp_path, **changed, **mixing
    )


def test_losses_are_the_official_ones(brain, official_classifier, finetune_parity):
    x, y = finetune_parity["x"][:, 0], finetune_parity["y_onehot"]
    mixed_x, mixed_y = mix_with_flipped(x, y, 0.3)
    for name, stage, outputs in (
        ("spcv2_train_mixup0.3", Stage.TRAIN, (official_classifier(mixed_x), mixed_y)),
        ("spcv2_eval", Stage.VALID, (official_classifier(x), y)),
    ):
        expected = finetune_parity.numbers[name]
        loss = brain.compute_objectives(outputs, None, stage)
        mean = expected["sum"] / expected["sample_size"]
        assert loss.item() == pytest.approx(mean, rel=2e-6)
    correct = finetune_parity.numbers["spcv2_eval"]["correct"]
    assert brain.compute_metrics(*outputs) == {"accuracy": correct / len(y)}


@pytest.mark.parametrize("stage", [Stage.TRAIN, Stage.VALID, Stage.TEST])
def test_augments_in_the_official_order(recipe, brain, call_order, stage):
    called = call_order(recipe, *sorted(AUGMENTATIONS))
    sig = torch.randn(2, 9000, generator=torch.Generator().manual_seed(0)) * 0.1
    labels = torch.eye(3)[:2]
    items = [{"id": i, "sig": sig[i], "target": labels[i]} for i in range(2)]
    batch = collate(items)
    brain.init_optimizers()
    brain.on_stage_start(stage, 1)
    if stage == Stage.TRAIN:
        brain.on_fit_batch_start(batch, True)
    _, seen = brain.compute_forward(batch, stage)
    training = stage == Stage.TRAIN
    assert called == AUGMENTATIONS * training
    assert torch.equal(seen, labels) != training  # mixed


@pytest.mark.parametrize("disabled", ["roll", "noise"])
def test_augmentations_can_be_disabled(recipe, brain, call_order, disabled):
    called = call_order(recipe, *AUGMENTATIONS)
    setattr(brain.hparams, disabled, False)
    sig = torch.ones(9000) * 0.1
    items = [{"id": i, "sig": sig, "target": torch.eye(3)[i]} for i in range(2)]
    batch = collate(items)
    brain.init_optimizers()
    brain.on_stage_start(Stage.TRAIN, 1)
    brain.on_fit_batch_start(batch, True)
    brain.compute_forward(batch, Stage.TRAIN)
    assert called == [name for name in AUGMENTATIONS if not name.startswith(disabled)]


@pytest.fixture(scope="module")
def finetuned(recipe, run_recipe, speech_commands, tmp_path_factory):
    """Folder and results of a run whose second epoch of three is the best.

    In the other epochs the network always predicts the first word.
    """
    folder = tmp_path_factory.mktemp("spc") / "run"

    class SecondIsBest(recipe.SpeechCommandsFinetuneBrain):
        def on_stage_start(self, stage, epoch=None):
            if stage == Stage.VALID and epoch != 2:
                with torch.no_grad():
                    self.unwrapped_model.head.bias[0] += 1000
            if stage == Stage.VALID and epoch == 2:
                with torch.no_grad():
                    self.unwrapped_model.head.bias.zero_()
            super().on_stage_start(stage, epoch)

        def compute_metrics(self, logits, labels):
            found = super().compute_metrics(logits, labels)
            if self.epoch == 2:  # on the validation list only
                found["accuracy"] = 0.75
            return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "SpeechCommandsFinetuneBrain", SecondIsBest)
        options = [*SHORT.split(), "--pretrained", "none", "--number_of_epochs", 3]
        results = run_recipe(NAME, "finetune_mini", speech_commands, folder, *options)
    return folder, results


def test_best_epoch_by_the_validation_list_is_tested(finetuned, speech_commands):
    folder, results = finetuned
    assert results["best"]["epoch"] == 2 and results["best"]["accuracy"] == 0.75
    assert results["last"]["epoch"] == 3
    config = json.loads((folder / "model" / "config.json").read_text())
    assert config["step"] == 4  # of 6
    # The model folder alone gives the same on the clips of the test list.
    labels = read_labels(folder / "manifests" / "labels.csv")
    clips = audio_dataset(
        folder / "manifests" / "test.csv", speech_commands, labels, 1.3
    )
    batch = collate([clips[i] for i in range(len(clips))])
    model, frontend = (
        load(folder / "model") for load in (eat.load_classifier, eat.load_frontend)
    )
    with torch.no_grad():
        logits = model(frontend(batch.wav, batch.lengths))
    correct = (logits.argmax(1) == batch.target.argmax(1)).float().mean().item()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.target)
    assert len(clips) == 20
    assert results["test"]["accuracy"] == pytest.approx(correct)
    assert results["test"]["loss"] == pytest.approx(loss.item() * 10, rel=1e-4)
    listed = (speech_commands / "testing_list.txt").read_text().split()
    assert sorted(f"{clip}.wav" for clip in batch.ids) == sorted(listed)


def test_results(finetuned):
    _, results = finetuned
    assert results["seed"] == 1 and results["clips_seen"] == 3 * 2 * 4
    assert results["settings"]["num_classes"] == 10
    assert results["data"]["test"] == {"used": 20, "used_in_paper": None}
    assert results["cost"]["hours"] > 0 and results["versions"]["torch"]
    assert results["skipped_batches"] == 0


def test_finished_run_is_not_changed(run_recipe, finetuned, speech_commands):
    folder, _ = finetuned
    names = ("results.json", "confusion.csv", "metrics.jsonl")
    before = [(folder / name).read_bytes() for name in names]
    options = [*SHORT.split(), "--pretrained", "none", "--number_of_epochs", 3]
    run_recipe(NAME, "finetune_mini", speech_commands, folder, *options)
    assert [(folder / name).read_bytes() for name in names] == before


def test_run_killed_before_its_test_can_be_resumed(
    run_recipe, finetuned, speech_commands
):
    folder, results = finetuned
    (folder / "results.json").unlink()
    options = [*SHORT.split(), "--pretrained", "none", "--number_of_epochs", 3]
    again = run_recipe(NAME, "finetune_mini", speech_commands, folder, *options)
    for key in ("best", "last", "test", "steps", "clips_seen"):
        assert again[key] == pytest.approx(results[key]), key
    assert again["cost"]["hours"] > 0


def test_test_only_repeats_the_test(run_recipe, finetuned, speech_commands, tmp_path):
    folder, results = finetuned
    options = ["--test_only", "--pretrained", folder / "model"]
    tested = run_recipe(NAME, "finetune_mini", speech_commands, tmp_path, *options)
    assert tested["test"] == pytest.approx(results["test"], rel=1e-5)
    assert not [*tmp_path.glob("save/*")]


@pytest.mark.slow
def test_pretraining(run_recipe, speech_commands, tmp_path):
    short = [*SHORT.split(), "--number_of_epochs", 1, "--clones", 2]
    run = tmp_path / "run"
    results = run_recipe(NAME, "pretrain_mini", speech_commands, run, *short)
    assert 0 <= results["last"]["knn_mAP"] <= 1 and results["clips_seen"] == 8
    tests = ["--test_only", "--pretrained", run / "model"]
    with pytest.raises(CheckpointError, match="pretraining") as error:
        run_recipe(NAME, "finetune_mini", speech_commands, tmp_path / "t", *tests)
    assert "\n" not in str(error.value)


def test_wrong_number_of_words(run_recipe, speech_commands, tmp_path):
    options = ["--pretrained", "none", "--num_classes", 35]
    with pytest.raises(ExperimentError, match="--num_classes 10"):
        run_recipe(NAME, "finetune_mini", speech_commands, tmp_path, *options)


FOLDERS = ("--data_folder", "in", "--output_folder", "out")


def test_run_sh_calls(run_sh):
    lines = run_sh(NAME, *FOLDERS, "--stop_stage", "3").stdout.splitlines()
    prepare, pretrain, finetune = (line for line in lines if ".py" in line)
    assert prepare == f"{RECIPE}/speech_commands_prepare.py in out/manifests"
    assert "hparams/pretrain.yaml" in pretrain
    assert pretrain.endswith("--output_folder out/pretrain")
    assert "hparams/finetune.yaml" in finetune
    model = "--pretrained out/pretrain/model"
    assert finetune.endswith(f"--output_folder out/finetune {model}")
    for call in (pretrain, finetune):
        assert "--data_folder in --manifest_folder out/manifests" in call


def test_run_sh_takes_a_model(run_sh):
    options = ["--pretrained", "EAT.pt", "--mini", "true", "--stop_stage", "3"]
    lines = run_sh(NAME, *FOLDERS, *options).stdout.splitlines()
    _, finetune = (line for line in lines if ".py" in line)
    assert "hparams/finetune_mini.yaml" in finetune
    assert finetune.endswith("--pretrained EAT.pt")


@pytest.mark.parametrize(
    "options",
    [
        "--nonsense 1",
        "--data_folder",
        "--stop_stage 5",
        "--mini yes",
        "--stage 3 --stop_stage 2",
    ],
)
def test_run_sh_refuses(options, run_sh):
    refused = run_sh(NAME, *FOLDERS, *options.split())
    assert refused.returncode == 2 and "--data_folder DIR" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.slow
def test_all_stages(speech_commands, tmp_path):
    """From the corpus to the results, with short trainings."""
    python, output = tmp_path / "python", tmp_path / "out"
    short = (
        f"--number_of_epochs 1 {SHORT} --precision fp32 --noprogressbar --device cpu"
    )
    python.write_text(
        "#!/usr/bin/env bash\n"
        f'[[ $1 != *train.py ]] || set -- "$@" {short}\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    folders = ["--data_folder", speech_commands, "--output_folder", output]
    finished = subprocess.run(
        ["bash", RECIPE / "run.sh", *folders, "--mini", "true"],
        env={
            **os.environ,
            "PYTHON": str(python),
            "PYTHONPATH": str(RECIPE.parents[1]),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    results = (output / "finetune" / "results.json").read_text()
    assert finished.stdout.endswith(results)
    assert 0 <= json.loads(results)["test"]["accuracy"] <= 1
    pretrained = json.loads(results)["settings"]["pretrained"]
    assert pretrained == str(output / "pretrain" / "model")


@pytest.mark.slow
def test_masked_padding(run_recipe, speech_commands, tmp_path):
    """With mixing; the test of the saved model alone masks the padding as well."""
    options = [*SHORT.split(), "--pretrained", "none", "--number_of_epochs", 1]
    masked = ["--mask_padding", True, "--num_frames", 160, "--mixup_probability", 0.5]
    folder = tmp_path / "run"
    results = run_recipe(
        NAME, "finetune_mini", speech_commands, folder, *options, *masked
    )
    config = json.loads((folder / "model" / "config.json").read_text())
    assert config["mask_padding"] is True
    arguments = ["--test_only", "--pretrained", folder / "model"]
    tested = run_recipe(
        NAME, "finetune_mini", speech_commands, tmp_path / "test", *arguments
    )
    assert tested["test"] == pytest.approx(results["test"], rel=1e-5)
