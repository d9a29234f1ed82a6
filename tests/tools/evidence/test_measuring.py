"""Scores that are reported and scores that are kept are those of the same probes."""

import numpy as np
import pytest
import torch

from eat.audio.frontend import LogMel
from eat.evaluation.baselines import log_mel_statistics
from eat.evaluation.linear_probe import linear_probe
from eat.evaluation.metrics import mean_average_precision
from eat.model.encoder import EATEncoder
from evidence import references
from evidence.clips import SUBSETS
from evidence.measuring import PROBES, FrozenFeatures, by_layer, probe_scores, summary
from evidence.results import read_scores, save_scores

CLIPS = {SUBSETS[0]: 40, SUBSETS[1]: 30}
FRAMES = 32
LAYERS, WIDTH = 2, 16


class Clips:
    """Noise whose level depends on the label."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.labels, self.spectrograms = {}, {}
        for subset, number in CLIPS.items():
            labels = (torch.rand(number, 3, generator=generator) < 0.4).float()
            noise = torch.randn(number, FRAMES, 128, generator=generator)
            self.labels[subset] = labels
            self.spectrograms[subset] = noise + labels.mean(1)[:, None, None]

    def normalized(self, subset, frontend):
        scaled = (self.spectrograms[subset] - frontend.mean) / (2 * frontend.std)
        return list(scaled.split(7))


@pytest.fixture(scope="module")
def clips():
    """Labeled spectrograms."""
    return Clips()


@pytest.fixture(scope="module")
def encoder():
    """A tiny encoder."""
    torch.manual_seed(0)
    size = {"dim": WIDTH, "depth": LAYERS, "num_heads": 2}
    return EATEncoder(**size, max_frames=FRAMES).eval()


@pytest.fixture(scope="module")
def features(encoder, clips):
    """The features of the clips."""
    return FrozenFeatures.compute(
        encoder, LogMel(mean=0.5, std=1.0, num_frames=FRAMES), clips
    )


@torch.no_grad()
def test_features_are_cls_token_and_mean_of_each_layer(features, encoder, clips):
    train, labels, test, _ = features.select("mean", 1)
    spec = (clips.spectrograms[SUBSETS[0]][:5] - 0.5) / 2
    tokens = encoder(spec, return_layers=True).layers[1]
    torch.testing.assert_close(train[:5], tokens[:, 1:].mean(dim=1))
    torch.testing.assert_close(features.select("cls", 1)[0][:5], tokens[:, 0])
    assert torch.equal(labels, clips.labels[SUBSETS[0]]) and len(test) == 30
    assert features.select("both")[0].shape == (40, LAYERS * 2 * WIDTH)


@pytest.mark.slow  # fits many probes
def test_kept_scores_give_the_reported_values(features, clips, tmp_path):
    save_scores(tmp_path, probe_scores(features))
    found, layers = summary(features), by_layer(features)
    for probe in PROBES:
        scores = read_scores(tmp_path, probe)
        value = mean_average_precision(scores, clips.labels[SUBSETS[1]])
        assert found[probe] == pytest.approx(value)
    assert found["linear_last"] == layers["linear_mean"][-1]
    assert found["knn_cls"] == layers["knn_cls"][-1]


def test_statistics_are_one_vector_for_each_probe(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(references, "num_frames_of", lambda _: FRAMES)
    folder = tmp_path / "log-mel"
    monkeypatch.setattr(references, "baseline_folder", lambda *_: folder)
    name = "log-mel statistics"
    found = references._statistics(None, name, clips)
    train, test = (
        log_mel_statistics(spec, torch.full((len(spec),), FRAMES))
        for spec in (clips.spectrograms[subset] for subset in SUBSETS)
    )
    labels = [clips.labels[subset] for subset in SUBSETS]
    expected = linear_probe(train, labels[0], test, labels[1])
    assert found["linear"] == pytest.approx(expected.value)
    for probe in PROBES:
        np.testing.assert_allclose(read_scores(folder, probe), expected.scores)
