"""`eat probe`: a table and a file of scores, the corpora's layouts, wrong input."""

import json

import numpy as np
import pytest
import soundfile
import torch

from eat.data.evaluation_splits import find_splits
from eat.data.manifest import LabelSet, ManifestRow, write_labels, write_manifest
from eat.errors import ManifestError
from eat.evaluation import probe_training
from eat.evaluation.linear_probe import linear_probe
from eat.inference.features import from_pretrained
from eat.inference.probe_features import features_of

LABELS = LabelSet(("low", "high"), ("Low", "High"))


@pytest.fixture
def corpus(tmp_path):
    """Manifests of tones of two pitches in noise; single-label, in two folds."""
    for fold in (1, 2):
        rows = []
        for number in range(12):
            random = np.random.default_rng(100 * fold + number)
            tone = np.sin(np.arange(4000) * (0.05, 0.6)[number % 2])
            name = f"{fold}-{number}.wav"
            wav = 0.3 * tone + 0.05 * random.normal(size=4000)
            soundfile.write(tmp_path / name, wav, 16000)
            rows.append(ManifestRow(name, 0.25, name, (LABELS.ids[number % 2],)))
        write_manifest(tmp_path / f"test_{fold}.csv", rows)
    write_labels(tmp_path / "labels.csv", LABELS)
    return tmp_path


def probe(eat_command, tagger, corpus, *arguments):
    out = corpus / "out.json"
    status, printed, err = eat_command(
        *("probe", tagger, corpus, "--data_folder", corpus, "--device", "cpu"),
        *("--json", out, *arguments),
    )
    assert status == 0, err
    return json.loads(out.read_text())["rows"], printed


@pytest.mark.slow
def test_rows_equal_probes_of_the_library(eat_command, tagger, corpus):
    rows, printed = probe(eat_command, tagger, corpus, "--layers", "0,1")
    model = from_pretrained(tagger, device="cpu")
    parts = [
        features_of(model, corpus / f"test_{k}.csv", corpus, LABELS) for k in (1, 2)
    ]
    for layer, row in enumerate(rows):
        values = [
            linear_probe(
                *(fit.cls[:, layer], fit.labels, own.cls[:, layer], own.labels),
                multi_label=False,
            ).value
            for fit, own in (parts[::-1], parts)
        ]
        assert row["layers"] == [layer] and row["metric"] == "accuracy"
        assert row["by_seed"] == [pytest.approx(np.mean(values))]
        assert row["low"] <= row["value"] <= row["high"]
        assert f"{row['value']:.3f}" in printed


@pytest.mark.slow
def test_every_probe_and_baseline(eat_command, tagger, corpus, monkeypatch):
    monkeypatch.setattr(probe_training, "EPOCHS", 1)
    rows, _ = probe(
        *(eat_command, tagger, corpus, "--layers", "all", "--seeds", "2"),
        *("--probe", "knn", "linear", "attentive", "protobin", "cgp"),
        *("--compare", tagger, "--baselines", "untrained", "log-mel", "mfcc"),
    )
    names = [(row["features"], row["probe"]) for row in rows]
    assert names.count(("MODEL", "linear")) == 2 and names.count(("MODEL", "cgp")) == 1
    assert names.count(("untrained", "protobin")) == 2
    assert names.count(("log-mel", "linear")) == names.count(("mfcc", "knn")) == 1
    for row in rows:
        assert len(row["by_seed"]) == 2
        assert ("gain" in row) == (row["features"] != "MODEL")
        if row["features"] == "other":  # the same model
            assert row["gain"]["value"] == 0


@pytest.mark.slow
def test_features_are_computed_once_for_each_model(eat_command, tagger, corpus):
    first, _ = probe(eat_command, tagger, corpus)
    folders = {path.name for path in (corpus / "probe_features").iterdir()}
    for path in corpus.glob("*.wav"):
        path.unlink()
    (corpus / "out.json").unlink()
    again, _ = probe(eat_command, tagger, corpus)
    assert again == first
    assert {path.name for path in (corpus / "probe_features").iterdir()} == folders
    arguments = ("--data_folder", corpus, "--device", "cpu", "--norm_std", "3")
    status, _, err = eat_command("probe", tagger, corpus, *arguments)
    assert status == 1 and ".wav" in err  # other features: the audio is needed


def test_layouts_of_the_recipes(corpus, tmp_path):
    one, two = (corpus / f"test_{fold}.csv" for fold in (1, 2))
    assert find_splits(corpus) == [((two,), one), ((one,), two)]
    assert find_splits(corpus, ["test_1"], "test_2") == [((one,), two)]
    for name in ("train", "test", "balanced_train", "eval"):
        (corpus / f"{name}.csv").touch()
        found = find_splits(corpus)
    assert found == [((corpus / "balanced_train.csv",), corpus / "eval.csv")]
    with pytest.raises(ManifestError, match="test_9"):
        find_splits(corpus, ["test_1"], "test_9")
    with pytest.raises(ManifestError, match="--test"):
        find_splits(corpus, ["test_1"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="balanced_train"):
        find_splits(tmp_path / "empty")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--layers", "7"), "--layers"),
        (("--weights", "teacher"), "teacher"),
        (("--compare", "nowhere"), "nowhere"),
        (("--train", "test_1"), "--test"),
        (("--json", "labels.csv"), "already exists"),
    ],
)
def test_wrong_options(eat_command, tagger, corpus, monkeypatch, arguments, named):
    monkeypatch.chdir(corpus)
    folder = ("--data_folder", corpus, "--device", "cpu")
    status, _, err = eat_command("probe", tagger, corpus, *folder, *arguments)
    assert status == 1 and named in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_the_global_random_state_is_left_alone(eat_command, tagger, corpus):
    state = torch.get_rng_state()
    probe(eat_command, tagger, corpus, "--baselines", "untrained")
    assert torch.equal(state, torch.get_rng_state())
