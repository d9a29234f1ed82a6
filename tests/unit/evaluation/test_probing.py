"""Probes against scikit-learn; nothing is selected on test clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from eat.evaluation import probing
from eat.evaluation.metrics import average_precision, mean_average_precision
from eat.evaluation.probing import (
    knn_probe,
    log_mel_statistics,
    logistic_probe,
    paired_bootstrap,
)


def linear_task(seed=0, clips=300, width=24, classes=3, noise=1.0):
    """Features of uneven scale, labels from a noisy linear rule."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(clips, width, generator=generator)
    rule = torch.randn(width, classes, generator=torch.Generator().manual_seed(99))
    logits = x @ rule / width**0.5
    logits = logits + noise * torch.randn(clips, classes, generator=generator) - 0.5
    return x * torch.logspace(-2, 2, width) + 3, (logits > 0).float()


@pytest.mark.parametrize("strength", [1.0, 0.1, 0.01])
def test_logistic_solution_equals_sklearn(strength):
    x, y = linear_task()
    x = (x - x.mean(0)) / x.std(0)
    ((weight, offset),) = probing._logistic_path(x, y, (strength,))
    for c in range(y.shape[1]):
        reference = LogisticRegression(
            C=1 / (strength * len(x)), tol=1e-8, max_iter=2000
        ).fit(x.numpy(), y[:, c].numpy())
        np.testing.assert_allclose(weight[:, c], reference.coef_[0], atol=2e-4)
        assert offset[c].item() == pytest.approx(reference.intercept_[0], abs=2e-4)


def test_logistic_path_handles_more_features_than_clips():
    x, y = linear_task(clips=20, width=60)
    x = (x - x.mean(0)) / x.std(0)
    ((weight, _),) = probing._logistic_path(x, y, (0.1,))
    reference = LogisticRegression(C=0.5, tol=1e-8, max_iter=2000)
    reference.fit(x.numpy(), y[:, 0].numpy())
    np.testing.assert_allclose(weight[:, 0], reference.coef_[0], atol=2e-4)


def test_logistic_probe_learns_and_returns_its_scores():
    train, test = linear_task(0, clips=600), linear_task(1, clips=400)
    result = logistic_probe(*train, *test)
    prior = test[1].mean().item()
    assert result.mAP > prior + 0.3
    assert result.mAP == pytest.approx(mean_average_precision(result.scores, test[1]))
    torch.testing.assert_close(
        result.per_class, average_precision(result.scores, test[1])
    )


def test_logistic_probe_does_not_use_the_test_labels():
    train, (test_x, test_y) = linear_task(0), linear_task(1)
    one = logistic_probe(*train, test_x, test_y)
    other = logistic_probe(*train, test_x, 1 - test_y)
    assert one.strength == other.strength
    torch.testing.assert_close(one.scores, other.scores)


def test_noise_selects_a_strong_regularization():
    (x, _), (_, unrelated) = linear_task(0), linear_task(5)
    noisy = logistic_probe(x, unrelated, *linear_task(1))
    clean = logistic_probe(*linear_task(0, noise=0.01), *linear_task(1))
    assert noisy.strength > clean.strength


def test_knn_equals_sklearn():
    (x, y), (test_x, test_y) = linear_task(0), linear_task(1)
    reference = KNeighborsClassifier(
        15, metric="cosine", weights=lambda distance: np.clip(1 - distance, 0, None)
    ).fit(x.numpy(), y.numpy())
    scores = np.stack(
        [p[:, 1] for p in reference.predict_proba(test_x.numpy())], axis=1
    )
    want = mean_average_precision(torch.from_numpy(scores), test_y)
    # Another summation order breaks a few exact ties.
    assert knn_probe(x, y, test_x, test_y, neighbors=15) == pytest.approx(
        want, abs=1e-3
    )


def test_knn_with_one_neighbor_finds_the_clip_itself():
    x, y = linear_task()
    assert knn_probe(x, y, x, y, neighbors=1) == 1
    assert knn_probe(x, y, 7 * x, y, neighbors=1) == 1  # the norm has no effect


def test_knn_with_fewer_clips_than_neighbors():
    x, y = linear_task(clips=10)
    assert 0 < knn_probe(x, y, *linear_task(1), neighbors=40) < 1


def scored(noise, seed, clips=150, classes=5):
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(clips, classes, generator=generator) < 0.3).float()
    generator.manual_seed(seed)
    return targets + noise * torch.randn(clips, classes, generator=generator), targets


def test_paired_bootstrap_equals_resampling_by_hand():
    (a, targets), (b, _) = scored(0.5, 1), scored(1.0, 2)
    difference, low, high = paired_bootstrap(a, b, targets, seed=7, draws=50)
    chosen = torch.randint(150, (50, 150), generator=torch.Generator().manual_seed(7))
    by_hand = [
        mean_average_precision(a[c], targets[c])
        - mean_average_precision(b[c], targets[c])
        for c in chosen
    ]
    assert (low, high) == pytest.approx(np.quantile(by_hand, [0.025, 0.975]))
    assert difference == pytest.approx(
        mean_average_precision(a, targets) - mean_average_precision(b, targets)
    )
    assert 0 < low < difference < high


def test_paired_bootstrap_of_a_model_with_itself_is_zero():
    a, targets = scored(0.5, 1)
    assert paired_bootstrap(a, a, targets, seed=0, draws=20) == (0, 0, 0)


def test_paired_bootstrap_in_chunks_covers_every_draw(monkeypatch):
    (a, targets), (b, _) = scored(0.5, 1), scored(0.6, 2)
    counted = []
    whole = probing.average_precision
    monkeypatch.setattr(
        probing,
        "average_precision",
        lambda s, t, w: counted.append(len(w)) or whole(s, t, w),
    )
    paired_bootstrap(a, b, targets, seed=0, draws=6000)
    assert sum(counted) == 2 * 6000 and len(counted) > 2


def test_log_mel_statistics_ignore_padding():
    spec = torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(0))
    frames = torch.tensor([20, 7, 1])
    padded = spec.clone()
    padded[1, 7:], padded[2, 1:] = 1e3, -1e3
    got = log_mel_statistics(padded, frames)
    assert got.shape == (3, 8)
    for clip, row, count in zip(spec, got, frames, strict=True):
        real = clip[:count]
        want = torch.cat([real.mean(0), real.std(0, unbiased=False)])
        torch.testing.assert_close(row, want)
