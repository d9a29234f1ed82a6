"""The recipe for your own recordings: prepare, pre-train, fine-tune, test."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import average_precision_score

import eat
from eat.audio.io import read_audio
from eat.errors import ExperimentError, ManifestError

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tools"), str(ROOT / "recipes" / "OwnData")]
compute_stats = importlib.import_module("compute_stats")
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
