"""The recipe for your own recordings: prepare, pre-train, fine-tune, test."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import soundfile
import torch
from sklearn.metrics import accuracy_score, average_precision_score, log_loss

import eat
from eat.audio.io import read_audio
from eat.errors import ExperimentError, ManifestError

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tools"), str(ROOT / "recipes" / "OwnData")]
compute_stats = importlib.import_module("compute_stats")
spec = importlib.util.spec_from_file_location(
    "own_folds", ROOT / "recipes" / "OwnData" / "summarize_folds.py"
)
own_folds = importlib.util.module_from_spec(spec)
spec.loader.exec_module(own_folds)
prepare_own_data = importlib.import_module("own_data_prepare").prepare_own_data

PRETRAIN = (
    "--number_of_epochs 1 --steps_per_epoch 2 --batch_size 2 --clones 2 "
    "--log_interval 1"
).split()
FINETUNE = (
    "--number_of_epochs 1 --steps_per_epoch 2 --batch_size 2 --num_classes 2"
).split()
CLASSES = ("low", "high")


@pytest.fixture
def recordings(tmp_path):
    """Twelve tones of a third of a second, low and high, at several depths."""
    folder = tmp_path / "recordings"
    time = np.arange(5000) / 16000
    for i in range(12):
        path = folder / f"day{i % 3}" / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = 0.3 * np.sin(2 * np.pi * (200, 3000)[i % 2] * (1 + i / 50) * time)
        soundfile.write(path, tone, 16000)
    return folder


def label(folder):
    """Label all but two of them, the last three for evaluation."""
    lines = [
        f"day{i % 3}/{i}.wav,{CLASSES[i % 2]},{'train' if i < 7 else 'eval'}\n"
        for i in range(10)
    ]
    (folder / "labels.csv").write_text("file,label,split\n" + "".join(lines))


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


def test_pretraining_without_labels(run_recipe, recordings, tmp_path):
    run = tmp_path / "run"
    results = run_recipe("OwnData", "pretrain_mini", recordings, run, *PRETRAIN)
    assert results["last"].keys() == {"valid_loss", "epoch"}  # no kNN score
    assert results["last"]["valid_loss"] > 0
    assert results["data"]["pretrain"]["used"] == 12
    assert eat.load_encoder(run / "model").config["dim"] == 128
    used = {record["step"]: record["loss"] for record in records(run)[:2]}
    assert used.keys() == {1, 2} and results["clips_seen"] == 4
    with pytest.raises(ExperimentError, match="labels.csv") as error:
        options = [*FINETUNE, "--pretrained", run / "model"]
        run_recipe("OwnData", "finetune_mini", recordings, tmp_path / "f", *options)
    assert "\n" not in str(error.value) and str(recordings) in str(error.value)


@pytest.mark.slow
def test_labeled_recordings(run_recipe, recordings, tmp_path):
    label(recordings)
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    results = run_recipe("OwnData", "pretrain_mini", recordings, run, *PRETRAIN)
    assert 0 <= results["last"]["knn_mAP"] <= 1
    used = {name: counts["used"] for name, counts in results["data"].items()}
    assert used == {"pretrain": 9, "balanced_train": 7, "eval": 3}
    options = [*FINETUNE, "--pretrained", run / "model"]
    results = run_recipe("OwnData", "finetune_mini", recordings, tuned, *options)
    assert 0 <= results["best"]["accuracy"] <= 1
    config = json.loads((tuned / "model" / "config.json").read_text())
    assert sorted(config["labels"]) == sorted(CLASSES)
    tests = [*FINETUNE, "--pretrained", tuned / "model", "--test_only"]
    tested = run_recipe("OwnData", "finetune_mini", recordings, tmp_path / "t", *tests)
    best = {key: results["best"][key] for key in ("loss", "accuracy")}
    assert tested["test"] == pytest.approx(best, rel=1e-5)


@pytest.mark.slow
def test_epoch_chosen_on_training_clips_is_tested_on_the_others(
    run_recipe, recordings, tmp_path
):
    label(recordings)
    run, two = tmp_path / "run", " ".join(FINETUNE).replace("epochs 1", "epochs 2")
    chosen = [*two.split(), "--pretrained", "none", "--held_out", 0.5]
    results = run_recipe("OwnData", "finetune_mini", recordings, run, *chosen)
    kinds = [record["kind"] for record in records(run) if record["kind"] != "step"]
    assert kinds == ["epoch", "epoch", "test"]
    # The saved model has the same metrics.
    tests = [*FINETUNE, "--pretrained", run / "model", "--test_only"]
    again = run_recipe("OwnData", "finetune_mini", recordings, tmp_path / "t", *tests)
    assert results["test"] == pytest.approx(again["test"], rel=1e-5)
    assert results["best"]["loss"] != pytest.approx(results["test"]["loss"], rel=1e-3)
    # Re-running the command changes nothing.
    assert run_recipe("OwnData", "finetune_mini", recordings, run, *chosen) == results
    assert len(records(run)) == len(kinds)


@pytest.mark.slow
def test_validation_clips_are_not_trained_on(load_recipe, run_recipe, recordings):
    recipe, seen = load_recipe("OwnData"), []

    class Watched(recipe.OwnDataPretrainBrain):
        def compute_forward(self, batch, stage):
            seen.extend((stage.name, clip) for clip in batch.ids)
            return super().compute_forward(batch, stage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "OwnDataPretrainBrain", Watched)
        run = recordings.parent / "run"
        options = " ".join(PRETRAIN).replace("epoch 2", "epoch 12").split()
        run_recipe("OwnData", "pretrain_mini", recordings, run, *options)
    trained, validated = (
        {clip for stage, clip in seen if stage == name} for name in ("TRAIN", "VALID")
    )
    assert len(validated) == 2 and len(trained) == 10 and not trained & validated


@pytest.mark.slow
def test_official_checkpoint_is_tested(run_recipe, recordings, tmp_path, parity_folder):
    """Its outputs are matched to the corpus's seven classes by their order."""
    lines = [f"day{i % 3}/{i}.wav,class{i % 7},eval\n" for i in range(12)]
    (recordings / "labels.csv").write_text("file,label,split\n" + "".join(lines))
    path = parity_folder / "official_finetuned.pt"
    options = ["--pretrained", path, "--test_only", "--label_mode", "multi"]
    run, seven = tmp_path / "run", [*options, "--num_classes", 7]
    tested = run_recipe("OwnData", "finetune_mini", recordings, run, *seven)
    model, frontend = eat.load_classifier(path), eat.load_frontend(path)
    scores, truth = [], []
    for i in range(12):
        wav = read_audio(recordings / f"day{i % 3}" / f"{i}.wav")
        with torch.no_grad():
            scores.append(model(frontend(wav[None]))[0])
        truth.append(torch.eye(7)[i % 7])
    scores, truth = torch.stack(scores).numpy(), torch.stack(truth).numpy()
    expected = average_precision_score(truth, scores)
    assert tested["test"]["mAP"] == pytest.approx(expected)


@pytest.fixture
def odd(tmp_path):
    """Recordings of all kinds, some labeled, one unreadable."""
    folder, random = tmp_path / "odd", np.random.default_rng(0)
    (folder / "deep" / "er").mkdir(parents=True)
    kinds = {
        "blip.wav": (0.1, 16000, 1),
        "hours.wav": (120, 8000, 1),
        "deep/stereo.flac": (3, 44100, 2),
        "deep/er/many channels.wav": (1, 96000, 6),
        "speech.mp3": (2, 16000, 1),
        "bell.ogg": (2, 22050, 1),
    }
    for name, (seconds, rate, channels) in kinds.items():
        wav = random.uniform(-0.4, 0.4, (int(seconds * rate), channels))
        soundfile.write(folder / name, wav, rate)
    (folder / "broken.wav").write_text("text")
    lines = "blip.wav,Blip,train\nhours.wav,Noise;Blip,train\nspeech.mp3,Noise,train\n"
    lines += "bell.ogg,Blip,eval\ndeep/stereo.flac,Noise,eval\n"
    (folder / "labels.csv").write_text("file,labels,split\n" + lines)
    return folder


@pytest.mark.slow
def test_odd_recordings_from_start_to_end(run_recipe, odd, tmp_path, capsys):
    """The README's steps: prepare, constants, pre-training, fine-tuning."""
    manifests, run = tmp_path / "manifests", tmp_path / "run"
    prepare_own_data(odd, manifests, 2.6)
    compute_stats.main([str(manifests / "pretrain.csv"), "--data_folder", str(odd)])
    constants = capsys.readouterr().out.splitlines()[-1].split()
    assert constants[::2] == ["--norm_mean", "--norm_std"]
    shared = ["--manifest_folder", manifests, *constants, "--max_unreadable_share", 0]
    results = run_recipe("OwnData", "pretrain_mini", odd, run, *PRETRAIN, *shared)
    assert results["data"]["pretrain"]["used"] == 4  # neither broken nor for evaluation
    assert results["unreadable_clips"] == 0 and results["last"]["valid_loss"] > 0
    options = [*FINETUNE, *shared, "--pretrained", run / "model"]
    tuned = run_recipe("OwnData", "finetune_mini", odd, tmp_path / "tuned", *options)
    assert 0 < tuned["best"]["mAP"] <= 1 and tuned["data"]["eval"]["used"] == 2
    skipped = (manifests / "skipped.csv").read_text()
    assert "broken.wav" in skipped and skipped.count("\n") == 2


def test_one_recording_is_too_few(run_recipe, recordings, tmp_path):
    for path in sorted(recordings.rglob("*.wav"))[1:]:
        path.unlink()
    with pytest.raises(ManifestError, match="day0/0") as error:
        run_recipe("OwnData", "pretrain_mini", recordings, tmp_path / "r", *PRETRAIN)
    assert "\n" not in str(error.value)


def test_no_such_corpus(run_recipe, recordings, tmp_path):
    options = ["--corpus", "audiosets"]
    with pytest.raises(ExperimentError, match="audiosets"):
        run_recipe("OwnData", "pretrain_mini", recordings, tmp_path / "r", *options)


@pytest.fixture
def classes(tmp_path):
    """Class folders: five recordings of each of three tones."""
    folder, time = tmp_path / "classes", np.arange(5000) / 16000
    for name, pitch in {"low": 200, "mid": 800, "high": 3000}.items():
        (folder / name).mkdir(parents=True)
        for i in range(5):
            tone = 0.3 * np.sin(2 * np.pi * pitch * (1 + i / 50) * time)
            soundfile.write(folder / name / f"{i}.wav", tone, 16000)
    return folder


THREE = (
    "--number_of_epochs 1 --steps_per_epoch 2 --batch_size 4 --num_classes 3".split()
)


def logits_of(model, folder, manifest):
    """Return the logits and true classes of a manifest's clips."""
    classifier, frontend = eat.load_classifier(model), eat.load_frontend(model)
    names = json.loads((model / "config.json").read_text())["labels"]
    logits, truth = [], []
    for row in csv.DictReader(manifest.open(encoding="utf-8")):
        wav = read_audio(row["wav"].replace("$data_root", str(folder)))
        with torch.no_grad():
            logits.append(classifier(frontend(wav[None]))[0])
        truth.append([float(name in row["labels"].split(";")) for name in names])
    return torch.stack(logits).numpy(), np.array(truth)


def test_single_labels_are_evaluated_by_accuracy(run_recipe, classes, tmp_path):
    run, options = tmp_path / "run", [*THREE, "--pretrained", "none"]
    results = run_recipe("OwnData", "finetune_mini", classes, run, *options)
    logits, truth = logits_of(run / "model", classes, run / "manifests" / "eval.csv")
    expected = accuracy_score(truth.argmax(1), logits.argmax(1))
    assert results["best"]["accuracy"] == pytest.approx(expected)
    expected = log_loss(truth, scipy.special.softmax(logits.astype(float), axis=1))
    assert results["best"]["loss"] == pytest.approx(expected, rel=1e-4)
    assert (run / "confusion.csv").is_file() and not (run / "class_ap.txt").exists()


@pytest.mark.slow
def test_several_labels_are_evaluated_by_mean_average_precision(
    run_recipe, classes, tmp_path
):
    lines = [
        f"{name}/{i}.wav,{name}|x{i % 2}\n"
        for name in "low high".split()
        for i in range(5)
    ]
    (classes / "labels.csv").write_text("path,tags\n" + "".join(lines))
    run, options = tmp_path / "run", [*THREE[:-1], 4, "--pretrained", "none"]
    results = run_recipe("OwnData", "finetune_mini", classes, run, *options)
    logits, truth = logits_of(run / "model", classes, run / "manifests" / "eval.csv")
    there = truth.any(axis=0)
    expected = average_precision_score(truth[:, there], logits[:, there])
    assert results["best"]["mAP"] == pytest.approx(expected)
    options += ["--label_mode", "single"]
    with pytest.raises(ExperimentError, match="label_mode single: .*(low|high)/"):
        run_recipe("OwnData", "finetune_mini", classes, tmp_path / "s", *options)


def test_clips_for_validation_choose_the_epoch(run_recipe, classes, tmp_path):
    for i, split in enumerate(("train", "train", "valid", "test", "test")):
        for name in ("low", "mid", "high"):
            (classes / split / name).mkdir(parents=True, exist_ok=True)
            (classes / name / f"{i}.wav").rename(classes / split / name / f"{i}.wav")
    run, options = tmp_path / "run", [*THREE, "--pretrained", "none"]
    results = run_recipe("OwnData", "finetune_mini", classes, run, *options)
    used = {name: counts["used"] for name, counts in results["data"].items()}
    assert used == {"pretrain": 6, "balanced_train": 6, "valid": 3, "eval": 6}
    for key, part in (("best", "valid"), ("test", "eval")):
        manifest = run / "manifests" / f"{part}.csv"
        logits, truth = logits_of(run / "model", classes, manifest)
        expected = accuracy_score(truth.argmax(1), logits.argmax(1))
        assert results[key]["accuracy"] == pytest.approx(expected)


def fold(classes, folds=3):
    """Give the recordings folds, in a table elsewhere."""
    lines = [
        f"{n}/{i}.wav,{n},{i % folds}\n"
        for n in ("low", "mid", "high")
        for i in range(5)
    ]
    path = classes.parent / "folds.csv"
    path.write_text("file,class,fold\n" + "".join(lines))
    return ["--labels", path]


@pytest.mark.slow
def test_a_fold_is_evaluated_on(run_recipe, classes, tmp_path):
    options = [*THREE, "--pretrained", "none", *fold(classes)]
    with pytest.raises(ExperimentError, match="folds 0, 1, 2 .*--fold 0"):
        run_recipe("OwnData", "finetune_mini", classes, tmp_path / "n", *options)
    with pytest.raises(ExperimentError, match="fold 3: .*folds 0, 1, 2"):
        run_recipe(
            "OwnData", "finetune_mini", classes, tmp_path / "n3", *options, "--fold", 3
        )
    for k in (0, 2):
        run = tmp_path / f"fold{k}"
        results = run_recipe(
            "OwnData", "finetune_mini", classes, run, *options, "--fold", k
        )
        manifest = run / "manifests" / f"eval_{k}.csv"
        logits, truth = logits_of(run / "model", classes, manifest)
        assert len(truth) == (6, None, 3)[k]
        expected = accuracy_score(truth.argmax(1), logits.argmax(1))
        assert results["best"]["accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--label_mode", "one"], "label_mode"),
        (["--fold", 1], "fold 1: .*no folds"),
        (["--num_classes", 2], "--num_classes 3"),
    ],
)
def test_settings_that_do_not_fit_the_data(
    run_recipe, classes, tmp_path, options, fault
):
    classes_given = [] if "--num_classes" in options else ["--num_classes", 3]
    options = [*THREE[:-2], "--pretrained", "none", *classes_given, *options]
    with pytest.raises(ExperimentError, match=fault) as error:
        run_recipe("OwnData", "finetune_mini", classes, tmp_path / "run", *options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("file,label,split\nlow/1,a,train\nlow/2,a,test\n", "'a'"),
        ("file,label,split\nlow/1,a,train\nlow/2,b,train\n", "eval.csv"),
    ],
)
def test_labels_that_cannot_be_learned(run_recipe, classes, tmp_path, table, fault):
    (classes / "labels.csv").write_text(table)
    options = [*THREE[:-1], 2, "--pretrained", "none"]
    with pytest.raises(ExperimentError, match=fault):
        run_recipe("OwnData", "finetune_mini", classes, tmp_path / "run", *options)


def test_summary_of_folds(tmp_path, capsys, monkeypatch):
    (tmp_path / "manifests").mkdir()
    scores = {1: 0.5, 2: 0.75, 10: 1.0}
    for k, score in scores.items():
        (tmp_path / "manifests" / f"eval_{k}.csv").touch()
        (tmp_path / f"fold{k}").mkdir()
        results = {kind: {"accuracy": score} for kind in ("best", "last")}
        (tmp_path / f"fold{k}" / "results.json").write_text(json.dumps(results))
    metric, rows = own_folds.summarize_folds(tmp_path, ["1", "2", "10"])
    assert metric == "accuracy" and [row["fold"] for row in rows[:3]] == [
        "1",
        "2",
        "10",
    ]
    assert rows[3]["best"] == pytest.approx(np.mean(list(scores.values())))
    assert rows[4]["last"] == pytest.approx(np.std(list(scores.values()), ddof=1))
    (tmp_path / "fold2" / "results.json").unlink()
    monkeypatch.setattr(sys, "argv", ["summarize_folds.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="fold2"):
        own_folds.main()


def test_run_sh_calls_every_fold(run_sh, tmp_path):
    manifests = tmp_path / "out" / "manifests"
    manifests.mkdir(parents=True)
    (manifests / "norm.txt").write_text("--norm_mean -4 --norm_std 4\n")
    (manifests / "labels.csv").write_text("index,mid,display_name\n0,a,a\n1,b,b\n")
    for k in (1, 2, 10):
        (manifests / f"eval_{k}.csv").touch()
    options = [
        "--data_folder",
        "D",
        "--output_folder",
        tmp_path / "out",
        "--stage",
        "2",
    ]
    called = run_sh("OwnData", *options).stdout.splitlines()
    trained = [line for line in called if "/train.py " in line]
    assert len(trained) == 6 and "summarize_folds.py" in called[-1]
    for number, k in enumerate((1, 2, 10)):
        for line in trained[2 * number : 2 * number + 2]:
            assert f"--fold {k} " in line
        assert f"--pretrained {tmp_path}/out/pretrain{k}/model" in line
    (manifests / "eval.csv").touch()
    called = run_sh("OwnData", *options).stdout.splitlines()
    assert sum("/train.py " in line for line in called) == 2
    assert not any("--fold" in line for line in called)


@pytest.mark.slow
def test_class_folders_and_folds_from_the_command_line(classes, tmp_path):
    """run.sh as the README has it, with fewer steps."""
    python = tmp_path / "python"
    steps = "--steps_per_epoch 2 --number_of_epochs 1 --device cpu"
    python.write_text(
        "#!/usr/bin/env bash\n"
        f'[[ $1 != *train.py ]] || set -- "$@" {steps}\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)

    def run(output, *options):
        folders = ["--data_folder", classes, "--output_folder", output]
        return subprocess.run(
            ["bash", ROOT / "recipes" / "OwnData" / "run.sh", *folders, *options],
            env={**os.environ, "PYTHON": str(python), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    run(tmp_path / "out", "--mini", "true")
    results = json.loads((tmp_path / "out" / "finetune" / "results.json").read_text())
    with open(tmp_path / "out" / "finetune" / "confusion.csv") as file:
        counts = np.array([row[1:] for row in list(csv.reader(file))[1:]], dtype=int)
    expected = counts.trace() / counts.sum()
    assert results["best"]["accuracy"] == pytest.approx(expected)
    model = ["--pretrained", tmp_path / "out" / "pretrain" / "model"]
    shown = run(tmp_path / "k", "--mini", "true", *model, *fold(classes, 2))
    metric, rows = own_folds.summarize_folds(tmp_path / "k", ["0", "1"])
    assert metric == "accuracy" and metric in shown
    assert [row["fold"] for row in rows[:2]] == ["0", "1"]
    scores = [
        json.loads((tmp_path / "k" / f"fold{k}" / "results.json").read_text())
        for k in range(2)
    ]
    expected = np.mean([score["best"]["accuracy"] for score in scores])
    assert rows[2]["best"] == pytest.approx(expected)
