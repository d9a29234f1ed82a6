"""`eat probe`: a table and a file of scores, the corpora's layouts, wrong input."""

import json
import os
import shutil

import numpy as np
import pytest
import soundfile
import torch

from eat.commands import probe as command
from eat.data.evaluation_splits import find_splits, read_targets
from eat.data.manifest import LabelSet, ManifestRow, write_labels, write_manifest
from eat.errors import ManifestError
from eat.evaluation import probe_suite, probe_training
from eat.evaluation.baselines import log_mel_statistics
from eat.evaluation.linear_probe import linear_probe
from eat.evaluation.probing import ProbeResult
from eat.inference import probe_features
from eat.inference.features import from_pretrained
from eat.interop.pretrained import save_model
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder

LABELS = LabelSet(("low", "high"), ("Low", "High"))


EVERY = LABELS.ids
FRONTEND = {"mean": -4.268, "std": 4.569, "num_frames": 64}


def write_clips(path, labels, prefix=""):
    """Write a manifest of clips with these labels."""
    names = [f"{prefix}{number}.wav" for number in range(len(labels))]
    clips = zip(names, labels, strict=True)
    write_manifest(path, [ManifestRow(name, 0.25, name, own) for name, own in clips])


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
@pytest.mark.parametrize("multi_label", [False, True])
def test_rows_equal_probes_of_the_library(eat_command, tagger, corpus, multi_label):
    labels = [(EVERY[number % 2],) for number in range(12)]
    if multi_label:
        labels[5] = EVERY
    for fold in (1, 2):
        write_clips(corpus / f"test_{fold}.csv", labels, f"{fold}-")
    rows, printed = probe(
        *(eat_command, tagger, corpus, "--layers", "0,1", "--baselines", "log-mel")
    )
    model = from_pretrained(tagger, device="cpu")
    names = [f"{number}.wav" for number in range(12)]
    parts = []
    for fold in (1, 2):
        wavs = [
            soundfile.read(corpus / f"{fold}-{n}", dtype="float32")[0] for n in names
        ]
        wav, lengths = torch.from_numpy(np.stack(wavs)), torch.full((12,), 4000)
        cls = [layer[:, 0] for layer in model(wav, lengths, True).layers]
        frames = model.frontend.valid_frames(lengths)
        parts.append([*cls, log_mel_statistics(model.frontend(wav, lengths), frames)])
    targets = torch.stack([LABELS.encode(";".join(own)) for own in labels])
    assert len(rows) == len(parts[0]) and rows[2]["features"] == "log-mel"
    for place, row in enumerate(rows):
        scores = [
            linear_probe(
                *(fit[place], targets, own[place], targets), multi_label=multi_label
            ).scores
            for fit, own in (parts[::-1], parts)
        ]
        both = ProbeResult.evaluate(
            torch.cat(scores), targets.repeat(2, 1), multi_label
        )
        assert row["metric"] == both.metric == ("mAP" if multi_label else "accuracy")
        assert row["by_seed"] == [pytest.approx(both.value)]
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
        assert ("model_minus_this" in row) == (row["features"] != "MODEL")
        if row["features"] == "other":  # the same model
            assert row["model_minus_this"]["value"] == 0


@pytest.mark.slow
def test_features_are_computed_once_for_each_model(eat_command, tagger, corpus):
    arguments = "--probe", "knn", "--train", "test_1", "--test", "test_2"

    def folders(model=tagger):
        """Run, and return the folders of the cache."""
        (corpus / "out.json").unlink(missing_ok=True)
        rows, _ = probe(eat_command, model, corpus, *arguments)
        return rows, {path.name for path in (corpus / "probe_features").iterdir()}

    first, made = folders()
    stored = [*(corpus / "probe_features").rglob("*.npy")]
    times = [path.stat().st_mtime_ns for path in stored]
    assert folders() == (first, made) and len(made) == len(stored) == 2
    assert [path.stat().st_mtime_ns for path in stored] == times
    os.utime(corpus / "2-3.wav", (1, 1))  # another recording
    assert len(folders()[1] - made) == 1
    rows = (corpus / "test_1.csv").read_text().splitlines(keepends=True)
    (corpus / "test_1.csv").write_text("".join(rows[:-1]))
    assert len(folders()[1] - made) == 2
    other = corpus / "model"
    save_other_model(other, 2)
    assert len(folders(other)[1] - made) == 4


def save_other_model(folder, depth):
    """Save a wider model than the tagger."""
    encoder = EATEncoder(dim=24, depth=depth, num_heads=2, max_frames=64)
    network = EATClassifier(encoder, 2)
    config = {"kind": "classifier", **network.config, "frontend": FRONTEND}
    config |= {"labels": ["a", "b"], "multi_label": True, "step": 0}
    save_model(folder, config, network.eval())


def test_another_model_may_differ_in_width_and_depth(eat_command, tagger, corpus):
    save_other_model(corpus / "model", 3)
    arguments = "--compare", corpus / "model", "--probe", "knn", "--layers"
    where = "--data_folder", corpus, "--device", "cpu"
    status, _, err = eat_command("probe", tagger, corpus, *where, *arguments, "all")
    assert status == 1 and "3 layers" in err
    assert not (corpus / "probe_features").exists()  # before anything is computed
    rows, _ = probe(eat_command, tagger, corpus, *arguments, "0,1")
    assert [row["layers"] for row in rows] == [[0], [1]] * 2
    for mine, other in zip(rows[:2], rows[2:], strict=True):
        difference = mine["value"] - other["value"]
        assert other["model_minus_this"]["value"] == pytest.approx(difference)


def test_a_corrupt_model_to_compare_with_is_reported_first(eat_command, tagger, corpus):
    shutil.copytree(tagger, corpus / "model")
    for weights in (corpus / "model").glob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-100])
    where = "--data_folder", corpus, "--device", "cpu", "--compare", corpus / "model"
    status, out, err = eat_command("probe", tagger, corpus, *where)
    assert status == 1 and "model" in err and not out
    assert not (corpus / "probe_features").exists()


def test_what_has_no_seed_is_done_once(eat_command, tagger, corpus, monkeypatch):
    calls = []
    for module, name in [(probe_suite, "knn_probe"), (probe_features, "statistics_of")]:
        actual = getattr(module, name)

        def counted(*arguments, _actual=actual, _name=name, **options):
            calls.append(_name)
            return _actual(*arguments, **options)

        monkeypatch.setattr(module, name, counted)
    rows, _ = probe(
        *(eat_command, tagger, corpus, "--probe", "knn", "--seeds", "3"),
        *("--train", "test_1", "--test", "test_2"),
        *("--baselines", "log-mel", "untrained"),
    )
    assert calls.count("knn_probe") == 1 + 1 + 3  # MODEL, log-mel, untrained
    assert calls.count("statistics_of") == 2  # manifests
    by_seed = {row["features"]: row["by_seed"] for row in rows}
    assert all(len(values) == 3 for values in by_seed.values())
    assert len(set(by_seed["MODEL"])) == 1


def test_rows_are_kept_if_a_later_one_fails(eat_command, tagger, corpus, monkeypatch):
    actual = command.evaluate

    def evaluate(splits, targets, features, job, *others):
        if job.layers == (1,):
            raise KeyboardInterrupt
        return actual(splits, targets, features, job, *others)

    monkeypatch.setattr(command, "evaluate", evaluate)
    out = corpus / "new" / "out.json"
    where = "--data_folder", corpus, "--device", "cpu", "--probe", "knn"
    arguments = *where, "--layers", "0,1", "--json", out
    assert eat_command("probe", tagger, corpus, *arguments)[0] == 130
    (row,) = json.loads(out.read_text())["rows"]
    assert row["layers"] == [0] and row["input"] == "cls"


@pytest.mark.parametrize(
    ("train", "test", "named"),
    [
        ([EVERY[:1], EVERY[1:]] * 6, [EVERY[:1], ()], "test.csv: 1 of 2"),
        ([EVERY[:1], (), ()] * 6, [EVERY[:1], EVERY[1:]], "train.csv: 12 of 18"),
        ([EVERY[:1], EVERY[1:]] * 4, [EVERY[:1], EVERY[1:]], "train.csv: 8 clips"),
        ([EVERY[:1]] * 12, [EVERY[:1], EVERY[1:]], "train.csv: all 12"),
        ([EVERY[:1], EVERY[1:]] * 6, [EVERY] * 3, "test.csv: all 3"),
    ],
    ids=["unlabeled test", "unlabeled", "tiny", "one class", "all of both classes"],
)
def test_corpora_whose_scores_would_mean_nothing(tmp_path, train, test, named):
    write_clips(tmp_path / "train.csv", train, "a")
    write_clips(tmp_path / "test.csv", test, "b")
    with pytest.raises(ManifestError, match=named):
        read_targets(find_splits(tmp_path), LABELS)


@pytest.mark.parametrize("same_file", [False, True])
def test_clips_to_fit_and_to_evaluate_on_must_differ(tmp_path, same_file):
    labels = [EVERY[:1], EVERY[1:]] * 6
    write_clips(tmp_path / "train.csv", labels, "a")
    text = (tmp_path / "train.csv").read_text()
    # The same recordings under other ids, or other paths.
    text = text.replace("\na", "\nb") if same_file else text.replace("/a", "/b")
    (tmp_path / "test.csv").write_text(text)
    with pytest.raises(ManifestError, match=r"train.csv, .*test.csv: 12 clips"):
        read_targets(find_splits(tmp_path), LABELS)
    with pytest.raises(ManifestError, match="12 clips"):
        read_targets(find_splits(tmp_path, ["train"], "train"), LABELS)


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
        (("--train", "test_1", "--test", "test_1"), "12 clips"),
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
