"""The ESC-50 recipe: loss, augmentation, runs, mean of the folds, run.sh."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from speechbrain import Stage

import eat
from eat.data.dataset import collate
from eat.errors import CheckpointError, ExperimentError

RECIPE = Path(__file__).parents[2] / "recipes" / "ESC50"
SHORT = "--number_of_epochs 2 --steps_per_epoch 2 --batch_size 4 --log_interval 2"
spec = importlib.util.spec_from_file_location("folds", RECIPE / "summarize_folds.py")
folds = importlib.util.module_from_spec(spec)
spec.loader.exec_module(folds)


@pytest.fixture(scope="module")
def recipe(load_recipe):
    return load_recipe("ESC50")


@pytest.fixture
def brain(recipe, finetune_brain, tmp_path):
    changed = {"roll": True, "spec_augment_ratio": 0.5, "label_smoothing": 0.1}
    return finetune_brain(recipe.ESC50FinetuneBrain, tmp_path, **changed)


def test_losses_are_the_official_ones(brain, official_classifier, finetune_parity):
    y = finetune_parity["y_onehot"]
    outputs = official_classifier(finetune_parity["x"][:, 0]), y
    stages = {"esc50_train_ls0.1": Stage.TRAIN, "esc50_eval": Stage.VALID}
    for name, stage in stages.items():
        expected = finetune_parity.numbers[name]
        loss = brain.compute_objectives(outputs, None, stage)
        mean = expected["sum"] / expected["sample_size"]
        assert loss.item() == pytest.approx(mean, rel=2e-6)
    correct = finetune_parity.numbers["esc50_eval"]["correct"]
    assert brain.compute_metrics(*outputs) == {"accuracy": correct / len(y)}


@pytest.mark.parametrize("stage", [Stage.TRAIN, Stage.VALID, Stage.TEST])
def test_augments_in_training_only(recipe, brain, call_order, stage):
    called = call_order(recipe, "spec_augment", "roll_and_gain")
    sig = torch.randn(2, 9000, generator=torch.Generator().manual_seed(0)) * 0.1
    labels = torch.eye(3)[:2]
    items = [{"id": i, "sig": sig[i], "target": labels[i]} for i in range(2)]
    batch = collate(items)
    brain.init_optimizers()
    brain.on_stage_start(stage, 1)
    if stage == Stage.TRAIN:
        brain.on_fit_batch_start(batch, True)
    _, seen = brain.compute_forward(batch, stage)
    assert torch.equal(seen, labels)  # no mixup
    assert called == ["roll_and_gain", "spec_augment"] * (stage == Stage.TRAIN)


def complaint(error):
    """Return the message of an expected error, which must be one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def finetuned(run_recipe, esc50, tmp_path_factory):
    """Folder and results of a short training from scratch on fold 2."""
    folder = tmp_path_factory.mktemp("esc50") / "run"
    options = [*SHORT.split(), "--pretrained", "none", "--fold", 2]
    return folder, run_recipe("ESC50", "finetune_mini", esc50, folder, *options)


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def test_results(finetuned):
    folder, results = finetuned
    epochs = [r for r in records(folder) if r["kind"] == "epoch"]
    assert [r["epoch"] for r in epochs] == [1, 2]
    # The best by accuracy; of equal ones the last, as in the official code.
    best = max(epochs, key=lambda r: (r["valid_accuracy"], r["epoch"]))
    for name, record in (("best", best), ("last", epochs[-1])):
        metrics = {key: record[f"valid_{key}"] for key in ("loss", "accuracy")}
        assert results[name] == {**metrics, "epoch": record["epoch"]}
    assert results["seed"] == 1 and results["steps"] == 4
    assert results["clips_seen"] == 16 and results["settings"]["fold"] == 2
    # Ten clips a fold, as many as the corpus has, not the paper's 400.
    assert results["data"]["fold2"] == {"used": 10, "used_in_paper": None}
    assert results["cost"]["clips_per_second"] > 0
    assert {"eat", "git", "torch", "speechbrain"} <= results["versions"].keys()


def test_run_is_evaluated_on_its_fold(finetuned, esc50):
    folder, results = finetuned
    with open(folder / "confusion.csv", newline="") as file:
        header, *rows = csv.reader(file)
    counts = torch.tensor([[int(count) for count in row[1:]] for row in rows])
    assert header[1:] == [row[0] for row in rows] and len(rows) == 10
    assert counts.sum(dim=1).tolist() == [1] * 10
    assert counts.trace().item() / 10 == pytest.approx(results["best"]["accuracy"])
    manifests = folder / "manifests"
    tests = {line[0] for line in csv.reader((manifests / "test_2.csv").open())}
    trained = {line[0] for line in csv.reader((manifests / "train_2.csv").open())}
    assert tests & trained == {"ID"} and all(t[:2] in ("ID", "2-") for t in tests)


def test_test_only_repeats_the_best_epoch(run_recipe, finetuned, esc50, tmp_path):
    folder, results = finetuned
    model, before = folder / "model", (folder / "results.json").read_bytes()
    options = ["--test_only", "--pretrained", model, "--fold", 2]
    tested = run_recipe("ESC50", "finetune_mini", esc50, tmp_path, *options)
    best = {key: results["best"][key] for key in ("loss", "accuracy")}
    assert tested["test"] == pytest.approx(best, rel=1e-5)
    assert "steps" not in tested and not [*tmp_path.glob("save/*")]
    confusion = (tmp_path / "confusion.csv").read_text()
    assert confusion == (folder / "confusion.csv").read_text()
    assert (folder / "results.json").read_bytes() == before
    # Another fold has other clips.
    options[-1] = 3
    other = run_recipe("ESC50", "finetune_mini", esc50, tmp_path / "3", *options)
    assert other["test"]["loss"] != tested["test"]["loss"]


@pytest.mark.slow
def test_finetuning_starts_from_the_pretrained_model(run_recipe, esc50, tmp_path):
    """The learning rate is 0, so that fine-tuning keeps the weights."""
    run = tmp_path / "pretrain"
    short = [*SHORT.split(), "--clones", 2, "--fold", 4]
    results = run_recipe("ESC50", "pretrain_mini", esc50, run, *short)
    assert 0 <= results["last"]["knn_mAP"] <= 1 and results["settings"]["fold"] == 4
    assert results["cost"]["gflop_per_clip"] > 0
    models = sorted(path.name for path in (run / "models").iterdir())
    assert models == ["epoch1", "epoch2"]
    still = ["--pretrained", run / "models" / "epoch1", "--lr", 0, "--fold", 4]
    options = [*SHORT.split(), *still]
    run_recipe("ESC50", "finetune_mini", esc50, tmp_path / "tune", *options)
    tuned = eat.load_classifier(tmp_path / "tune" / "model").encoder.state_dict()
    start = eat.load_encoder(run / "models" / "epoch1").state_dict()
    assert all(torch.equal(start[key], tuned[key]) for key in start)
    tests = ["--test_only", "--fold", 4, "--pretrained", run / "model"]
    with pytest.raises(CheckpointError, match="pretraining") as error:
        run_recipe("ESC50", "finetune_mini", esc50, tmp_path / "test", *tests)
    complaint(error)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--pretrained none --fold 6", "fold 6"),
        ("--pretrained none --num_classes 50", "50.*--num_classes 10"),
    ],
)
def test_refusals(run_recipe, esc50, tmp_path, options, named):
    with pytest.raises(ExperimentError, match=named) as error:
        run_recipe("ESC50", "finetune_mini", esc50, tmp_path, *options.split())
    complaint(error)


def write_fold_results(output):
    best, last = [0.9, 0.8, 1.0, 0.7, 0.6], [0.5, 0.5, 0.5, 0.5, 0.75]
    for fold, pair in enumerate(zip(best, last, strict=True), 1):
        (output / f"fold{fold}").mkdir()
        both = dict(zip(("best", "last"), ({"accuracy": a} for a in pair), strict=True))
        (output / f"fold{fold}" / "results.json").write_text(json.dumps(both))


def test_mean_and_standard_deviation_of_the_folds(tmp_path):
    write_fold_results(tmp_path)
    _, rows = folds.summarize_folds(tmp_path, range(1, 6))
    assert [row["best"] for row in rows[:5]] == [0.9, 0.8, 1.0, 0.7, 0.6]
    mean, deviation = rows[5:]
    # By hand: squares .01 + 0 + .04 + .01 + .04 = .1 over n - 1 = 4; .05 over 4.
    assert mean["best"] == pytest.approx(0.8)
    assert deviation["best"] == pytest.approx(0.025**0.5)
    assert mean["last"] == pytest.approx(0.55)
    assert deviation["last"] == pytest.approx(0.0125**0.5)


def test_summary_of_the_folds_and_missing_ones(tmp_path, monkeypatch, capsys):
    write_fold_results(tmp_path)
    monkeypatch.setattr(sys, "argv", ["summarize_folds.py", str(tmp_path)])
    folds.main()
    printed = capsys.readouterr().out
    assert "0.800" in printed and "0.158" in printed and "0.550" in printed
    (tmp_path / "fold3" / "results.json").unlink()
    with pytest.raises(SystemExit, match="fold3/results.json") as error:
        folds.main()
    assert "\n" not in error.value.code
    for content in ("{", "[]", '{"best": 3}', '{"best": {}}'):
        (tmp_path / "fold3" / "results.json").write_text(content)
        with pytest.raises(SystemExit, match="^error: .*fold3/results.json"):
            folds.main()


FOLDERS = ("--data_folder", "in", "--output_folder", "out")


def test_run_sh_calls(run_sh):
    lines = run_sh("ESC50", *FOLDERS, "--mini", "true").stdout.splitlines()
    calls = [line for line in lines if ".py" in line]
    assert calls[0] == f"{RECIPE}/esc50_prepare.py in out/manifests"
    assert calls[-1] == f"{RECIPE}/summarize_folds.py out" and len(calls) == 12
    for fold in range(1, 6):
        pretrain, finetune = calls[fold], calls[fold + 5]
        assert "/pretrain_mini.yaml" in pretrain and "/finetune_mini.yaml" in finetune
        assert f"--output_folder out/pretrain{fold} --fold {fold}" in pretrain
        assert f"--output_folder out/fold{fold} --fold {fold}" in finetune
        assert finetune.endswith(f"--pretrained out/pretrain{fold}/model")
        for call in (pretrain, finetune):
            assert "--data_folder in --manifest_folder out/manifests" in call


def test_run_sh_takes_a_model(run_sh):
    options = ["--pretrained", "EAT.pt", "--stage", "2", "--stop_stage", "3"]
    lines = run_sh("ESC50", *FOLDERS, *options).stdout.splitlines()
    calls = [line for line in lines if ".py" in line]
    assert len(calls) == 5 and all("--pretrained EAT.pt" in call for call in calls)
    assert all("hparams/finetune.yaml" in call for call in calls)


@pytest.mark.parametrize(
    "options", ["--nonsense 1", "--data_folder", "--stage 0", "--mini yes"]
)
def test_run_sh_refuses(options, run_sh):
    refused = run_sh("ESC50", *FOLDERS, *options.split())
    assert refused.returncode == 2 and "--data_folder DIR" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.slow
def test_first_and_last_stage(esc50, tmp_path):
    write_fold_results(tmp_path)
    folders = ["--data_folder", esc50, "--output_folder", tmp_path]
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(RECIPE.parents[1]),
    }

    def stage(number):
        only = ["--stage", number, "--stop_stage", number]
        return subprocess.run(
            ["bash", RECIPE / "run.sh", *folders, *only],
            env=environment,
            capture_output=True,
            text=True,
        )

    assert stage("1").returncode == 0
    assert (tmp_path / "manifests" / "train_5.csv").is_file()
    shown = stage("4")
    assert shown.returncode == 0 and "0.800" in shown.stdout
    (tmp_path / "fold1" / "results.json").unlink()
    failed = stage("4")
    assert failed.returncode == 1
    assert "error: " in failed.stderr and "Traceback" not in failed.stderr
