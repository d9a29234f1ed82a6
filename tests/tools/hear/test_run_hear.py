"""HEAR's task folders: splits, and scores of tasks that any features solve."""

import json

import numpy as np
import pytest
import soundfile
import torch

import run_hear
from eat.adapters.hear import load_model
from eat.errors import ManifestError
from hear.tasks import HearTask

RATE = 48000
SCENE = {
    "task_name": "toy",
    "embedding_type": "scene",
    "prediction_type": "multiclass",
    "split_mode": "trainvaltest",
    "evaluation": ["top1_acc", "mAP"],
}
EVENT = {
    **SCENE,
    "embedding_type": "event",
    "prediction_type": "multilabel",
    "evaluation": ["event_onset_200ms_fms"],
}
SPLITS = ("train", "valid", "test")


@pytest.fixture
def official(parity_folder):
    return parity_folder / "official_pretrain.pt"


@pytest.fixture
def write_task(tmp_path):
    """Write a task folder: clips `{split: {name: (waveform, labels)}}`."""

    def write(metadata, labels, clips):
        folder = tmp_path / "toy-v1"
        for split, entries in clips.items():
            audio = folder / str(RATE) / split
            audio.mkdir(parents=True)
            for name, (wav, _) in entries.items():
                soundfile.write(audio / name, wav, RATE)
            listed = {name: labels for name, (_, labels) in entries.items()}
            (folder / f"{split}.json").write_text(json.dumps(listed))
        (folder / "task_metadata.json").write_text(json.dumps(metadata))
        rows = [f"{i},{label}" for i, label in enumerate(labels)]
        (folder / "labelvocabulary.csv").write_text("\n".join(["idx,label", *rows]))
        return folder

    return write


def noise(rng, seconds):
    return rng.uniform(-0.5, 0.5, round(seconds * RATE))


def tone(rng, seconds):
    pitch = rng.uniform(300, 600)
    return 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)


def scenes(splits, clips=6):
    """Noise and tones; one class is called NA, which is not a missing value."""
    rng = np.random.default_rng(0)
    return {
        split: {
            f"{split}-{i}.wav": ((noise, tone)[i % 2](rng, 0.5), [("NA", "7")[i % 2]])
            for i in range(clips)
        }
        for split in splits
    }


def detections(splits, clips=4):
    """Two seconds of near silence with half a second of noise."""
    rng = np.random.default_rng(0)
    result = {}
    for split in splits:
        result[split] = {}
        for i in range(clips):
            wav, start = 0.001 * noise(rng, 2), 0.3 * (i + 1)
            at = round(start * RATE)
            wav[at : at + RATE // 2] = noise(rng, 0.5)
            event = {"label": "noise", "start": 1000 * start, "end": 1000 * start + 500}
            result[split][f"{i}.wav"] = (wav, [event])
    return result


def run(capsys, *arguments):
    run_hear.main([*map(str, arguments), "--grid_points", "2", "--max_epochs", "60"])
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "score"),
    [
        ({}, "top1_acc"),
        ({"prediction_type": "multilabel", "evaluation": ["mAP"]}, "mAP"),
        ({"prediction_type": "multilabel", "evaluation": ["aucroc"]}, "aucroc"),
    ],
)
def test_scene_task(changes, score, write_task, official, capsys):
    folder = write_task({**SCENE, **changes}, ["NA", "7"], scenes(SPLITS))
    assert f"toy: {score} 1.0000 (validation 1.0000, folds 1" in run(
        capsys, official, folder, "--model_options", '{"layers": 1, "pooling": "mean"}'
    )


@pytest.mark.slow
def test_folds(write_task, official, capsys):
    folds = [f"fold0{i}" for i in range(3)]
    metadata = {**SCENE, "split_mode": "presplit_kfold", "splits": folds}
    folder = write_task(metadata, ["NA", "7"], scenes(folds))
    assert "top1_acc 1.0000 (validation 1.0000, folds 3" in run(
        capsys, official, folder
    )
    assert HearTask(folder).splits() == [
        (["fold02"], "fold01", "fold00"),
        (["fold00"], "fold02", "fold01"),
        (["fold01"], "fold00", "fold02"),
    ]


@pytest.mark.slow
def test_event_task(write_task, official, capsys):
    folder = write_task(EVENT, ["other", "noise"], detections(SPLITS))
    assert "event_onset_200ms_fms 1.0000" in run(capsys, official, folder)


def test_labels_of_frames(write_task, official):
    folder = write_task(EVENT, ["other", "noise"], detections(["train"], clips=1))
    model = load_model(str(official), hop_ms=80)
    clips = HearTask(folder).encode("train", model)
    (times,) = clips.times
    assert times.tolist() == [40 + 80 * i for i in range(25)]
    inside = (times >= 300) & (times <= 800)
    assert torch.equal(clips.y, torch.stack([0 * inside, 1 * inside], dim=1).float())
    assert len(clips.x) == 25


def test_errors_name_the_file(write_task, official, tmp_path, capsys):
    with pytest.raises(ManifestError, match="task_metadata.json"):
        HearTask(tmp_path)
    unknown = {**SCENE, "evaluation": ["segment_1s_er"]}
    folder = write_task(unknown, ["NA", "7"], scenes(SPLITS, 2))
    with pytest.raises(SystemExit, match="segment_1s_er"):
        run(capsys, official, folder)
    with pytest.raises(SystemExit, match="missing.pt"):
        run(capsys, tmp_path / "missing.pt", folder)
    for options in ({"layers": 30}, {"layers": [0, 1]}, {"hop_ms": 30}, {"layer": 1}):
        text = json.dumps(options)
        with pytest.raises(SystemExit, match=f"--model_options.*{[*options][0]}"):
            run(capsys, official, folder, "--model_options", text)
    with pytest.raises(SystemExit):
        run(capsys, official, folder, "--model_options", "layers=6")
    assert "JSON" in capsys.readouterr().err
