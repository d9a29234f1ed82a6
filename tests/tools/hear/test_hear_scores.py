"""Scores of HEAR equal scikit-learn's, and those of an independent matching."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from sklearn.metrics import roc_auc_score

from hear.scores import auc, find_events, onset_f_measure
from hear.tasks import Event


def test_auc_equals_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, generator=generator).round(decimals=1)  # with ties
    targets = (torch.rand(50, 4, generator=generator) < 0.3).float()
    assert auc(logits, targets) == pytest.approx(roc_auc_score(targets, logits))


def random_events(rng, number):
    starts = rng.uniform(0, 3000, number)
    labels = rng.integers(3, size=number)
    return [Event(*pair, pair[1] + 100) for pair in zip(labels, starts, strict=True)]


@pytest.mark.parametrize("tolerance", [50, 200])
@pytest.mark.parametrize("seed", range(5))
def test_onsets_are_matched_as_by_a_bipartite_graph(seed, tolerance):
    rng = np.random.default_rng(seed)
    reference = [random_events(rng, 20) for _ in range(3)]
    found = [random_events(rng, 25) for _ in range(3)]
    matches = 0
    for one, other in zip(reference, found, strict=True):
        close = [
            [a.label == b.label and abs(a.start - b.start) <= tolerance for b in other]
            for a in one
        ]
        matches += (maximum_bipartite_matching(csr_array(close)) >= 0).sum()
    precision, recall = matches / 75, matches / 60
    expected = 2 * precision * recall / (precision + recall)
    assert onset_f_measure(reference, found, tolerance) == pytest.approx(expected)


def test_no_events():
    assert onset_f_measure([[]], [[]], 50) == 0


def test_events_are_runs_of_active_frames():
    active = torch.tensor([[1, 1, 1, 0, 0, 1, 1, 0, 1], [0] * 8 + [1]]).T
    times = torch.arange(9) * 40.0 + 20
    logits = active * 2.0 - 1
    assert find_events(logits, times, 0, 40) == [Event(0, 20, 100), Event(0, 220, 260)]
    assert len(find_events(logits, times, 0, 0)) == 4
    # A median of three frames fills the gap of one, and removes the single ones.
    smooth = find_events(logits, times, 120, 40)
    assert smooth == [Event(0, 20, 100), Event(0, 220, 340)]
