"""Metrics against scikit-learn and hand-computed cases."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from eat.evaluation.metrics import accuracy, average_precision, mean_average_precision


def draw(seed, clips=120, classes=9, levels=None):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(clips, classes, generator=generator)
    if levels:
        scores = (scores * levels).round() / levels
    targets = (torch.rand(clips, classes, generator=generator) < 0.2).float()
    return scores, targets


def sklearn_ap(scores, targets, weights=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            average_precision_score(
                targets[:, c].numpy(), scores[:, c].numpy(), sample_weight=weights
            )
            for c in range(scores.shape[1])
        ]


@pytest.mark.parametrize("levels", [None, 4, 1, 0.25])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_sklearn_with_and_without_ties(seed, levels):
    scores, targets = draw(seed, levels=levels)
    got = average_precision(scores, targets)
    np.testing.assert_allclose(got, sklearn_ap(scores, targets), atol=1e-12)
    assert got.dtype == torch.float64


def test_clip_weights_equal_sklearn_for_each_leading_row():
    scores, targets = draw(2, levels=2)
    weights = torch.randint(
        0, 4, (3, len(scores)), generator=torch.Generator().manual_seed(3)
    )
    got = average_precision(scores, targets, weights)
    assert got.shape == (3, scores.shape[1])
    for row, weight in zip(got, weights, strict=True):
        want = sklearn_ap(scores, targets, weight.numpy())
        np.testing.assert_allclose(row, want, atol=1e-12)


def test_integer_weights_are_repeated_clips():
    scores, targets = draw(4)
    weights = torch.arange(len(scores)) % 3
    repeated = average_precision(
        scores.repeat_interleave(weights, 0), targets.repeat_interleave(weights, 0)
    )
    torch.testing.assert_close(average_precision(scores, targets, weights), repeated)


def test_arrays_of_any_type_equal_tensors():
    scores, targets = draw(5, levels=4)
    want = average_precision(scores, targets)
    arrays = scores.double().numpy(), targets.bool().numpy()
    assert torch.equal(average_precision(*arrays), want)
    assert torch.equal(average_precision(scores, arrays[1]), want)
    weights = np.ones(len(scores), dtype=np.int64)
    assert torch.equal(average_precision(*arrays, weights), want)
    assert mean_average_precision(*arrays) == want.mean()


def test_hand_computed_cases():
    scores = torch.tensor([[0.9, 0.5], [0.8, 0.5], [0.7, 0.5], [0.6, 0.5]])
    targets = torch.tensor([[1, 1], [0, 0], [1, 0], [0, 0]])
    # First class: precision 1 at recall 1/2, 2/3 at recall 1. Second class: all scores
    # are equal, so one step at precision 1/4.
    got = average_precision(scores, targets)
    assert got.tolist() == pytest.approx([0.5 * 1 + 0.5 * 2 / 3, 0.25])
    assert mean_average_precision(scores, targets) == pytest.approx((5 / 6 + 1 / 4) / 2)


def test_class_without_positives_is_nan_and_not_in_the_mean():
    scores = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    targets = torch.tensor([[0, 0], [1, 0]])
    got = average_precision(scores, targets)
    assert got[0] == 1 and math.isnan(got[1])
    assert mean_average_precision(scores, targets) == 1


def test_wrong_shapes_and_nan_scores_are_rejected():
    scores, targets = draw(0)
    with pytest.raises(ValueError, match=r"\(120, 9\).*\(120, 1\)"):
        average_precision(scores, targets[:, :1])
    with pytest.raises(ValueError, match=r"\(120,\)"):
        average_precision(scores[:, 0], targets[:, 0])
    scores[3, 2] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        average_precision(scores, targets)


def test_accuracy_from_class_numbers_and_one_hot_rows():
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [1.0, 0.0]])
    numbers = torch.tensor([0, 1, 1, 0])
    assert accuracy(logits, numbers) == 0.75
    assert accuracy(logits, torch.eye(2)[numbers]) == 0.75
