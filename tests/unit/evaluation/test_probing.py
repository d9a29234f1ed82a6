"""Probes of one vector per clip against scikit-learn; test labels select nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eat.errors import ExperimentError
from eat.evaluation import linear_probe as linear
from eat.evaluation.linear_probe import linear_probe
from eat.evaluation.metrics import mean_average_precision
from eat.evaluation.probing import ProbeResult, knn_probe, lowest_loss


def linear_task(seed=0, clips=300, width=24, classes=3, noise=1.0, multi_label=True):
    """Features of uneven scale, labels from a noisy linear rule."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(clips, width, generator=generator)
    rule = torch.randn(width, classes, generator=torch.Generator().manual_seed(99))
    logits = x @ rule / width**0.5
    logits = logits + noise * torch.randn(clips, classes, generator=generator) - 0.5
    best = torch.nn.functional.one_hot(logits.argmax(dim=1), classes)
    labels = (logits > 0) if multi_label else best
    return x * torch.logspace(-2, 2, width) + 3, labels.float()


def standardized(x):
    return (x - x.mean(0)) / x.std(0)


@pytest.mark.parametrize(
    ("strength", "clips"),
    [(1.0, 300), (0.1, 300), (0.01, 300), (0.1, 20)],  # also fewer than features
)
def test_one_vs_rest_solution_equals_sklearn(strength, clips):
    x, y = linear_task(clips=clips)
    x = standardized(x)
    ((weight, offset),) = linear._path(x, y, (strength,), multi_label=True)
    for c in range(y.shape[1]):
        reference = LogisticRegression(
            C=1 / (strength * clips), tol=1e-8, max_iter=2000
        )
        reference.fit(x.numpy(), y[:, c].numpy())
        np.testing.assert_allclose(weight[:, c], reference.coef_[0], atol=5e-4)
        assert offset[c].item() == pytest.approx(reference.intercept_[0], abs=5e-4)


@pytest.mark.parametrize("strength", [1.0, 0.1, 0.01])
def test_multinomial_solution_equals_sklearn(strength):
    x, y = linear_task(multi_label=False)
    x = standardized(x)
    ((weight, offset),) = linear._path(x, y, (strength,), multi_label=False)
    reference = LogisticRegression(C=1 / (strength * len(x)), tol=1e-8, max_iter=2000)
    reference.fit(x.numpy(), y.argmax(1).numpy())
    np.testing.assert_allclose(weight.T, reference.coef_, atol=5e-4)
    got = (x @ weight + offset).softmax(dim=1)  # biases are known up to a constant
    np.testing.assert_allclose(got, reference.predict_proba(x.numpy()), atol=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("multi_label", [True, False])
def test_linear_probe_equals_sklearn_and_ignores_the_test_labels(multi_label):
    train = linear_task(0, clips=600, multi_label=multi_label)
    test_x, test_y = linear_task(1, clips=400, multi_label=multi_label)
    result = linear_probe(*train, test_x, test_y, multi_label=multi_label)
    x = standardized(train[0]).numpy()
    unseen = ((test_x - train[0].mean(0)) / train[0].std(0)).numpy()
    model = LogisticRegression(C=1 / (result.chosen["strength"] * 600), max_iter=2000)
    if multi_label:
        labels = train[1].T.numpy()
        columns = [model.fit(x, y).decision_function(unseen) for y in labels]
        want = mean_average_precision(np.stack(columns, axis=1), test_y)
        assert result.metric == "mAP" and want > test_y.mean() + 0.3
    else:
        model.fit(x, train[1].argmax(1).numpy())
        want = model.score(unseen, test_y.argmax(1).numpy())
        assert result.metric == "accuracy" and want > 0.5
    assert result.value == pytest.approx(want, abs=2e-3)
    other = linear_probe(*train, test_x, test_y.flip(0), multi_label=multi_label)
    torch.testing.assert_close(result.scores, other.scores)


@pytest.mark.slow
def test_strength_is_that_of_sklearn_cross_validation():
    x, y = linear_task(0, clips=200)
    rows = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    folds = [part.numpy() for part in rows.tensor_split(linear.FOLDS)]
    splits = [(np.setdiff1d(rows, part), part) for part in folds]
    losses = []
    for strength in linear.STRENGTHS:
        model = LogisticRegression(C=1 / (strength * 160), max_iter=2000)
        scaled = make_pipeline(StandardScaler(), model)
        scores = cross_val_score(scaled, x, y[:, 0], scoring="neg_log_loss", cv=splits)
        losses.append(-scores.mean())
    chosen = linear_probe(x, y[:, :1], x, y[:, :1], seed=3).chosen["strength"]
    assert chosen == linear.STRENGTHS[int(np.argmin(losses))]


def test_noise_selects_a_strong_regularization():
    (x, _), (_, unrelated) = linear_task(0), linear_task(5)
    noisy = linear_probe(x, unrelated, *linear_task(1))
    clean = linear_probe(*linear_task(0, noise=0.01), *linear_task(1))
    assert noisy.chosen["strength"] > clean.chosen["strength"]


@pytest.mark.parametrize("constant", [0.0, -1e4])
def test_a_feature_that_is_constant_in_training_is_ignored(constant):
    (x, y), (test_x, test_y) = linear_task(0, clips=60), linear_task(1, clips=40)
    without = linear_probe(x, y, test_x, test_y)
    x = torch.cat([x, torch.full((len(x), 1), constant)], dim=1)
    column = torch.where(torch.arange(len(test_x)) % 2 > 0, constant, constant + 0.7)
    found = linear_probe(x, y, torch.cat([test_x, column[:, None]], dim=1), test_y)
    torch.testing.assert_close(found.scores, without.scores, rtol=1e-4, atol=1e-4)


def test_a_candidate_that_diverged_is_not_chosen():
    losses = torch.tensor([np.nan, 3.0, np.inf, 2.0, np.nan])
    assert lowest_loss(losses) == 3
    with pytest.raises(ExperimentError, match="finite"):
        lowest_loss(losses[[0, 2]])


@pytest.mark.parametrize("multi_label", [True, False])
def test_scores_that_are_not_finite_have_no_metric(multi_label):
    scores, targets = torch.eye(3), torch.eye(3)
    scores[1, 2] = torch.nan
    with pytest.raises(ExperimentError, match=r"0\.1.*finite"):
        ProbeResult.evaluate(scores, targets, multi_label, lr=0.1)


def weights(distance):
    return np.clip(1 - distance, 0, None)


def test_knn_equals_sklearn():
    (x, y), (test_x, test_y) = linear_task(0), linear_task(1)
    reference = KNeighborsClassifier(15, metric="cosine", weights=weights)
    found = reference.fit(x.numpy(), y.numpy()).predict_proba(test_x.numpy())
    want = mean_average_precision(np.stack([p[:, 1] for p in found], axis=1), test_y)
    # Another summation order breaks a few exact ties.
    got = knn_probe(x, y, test_x, test_y, neighbors=15)
    assert got.value == pytest.approx(want, abs=1e-3)
    one_hot, classes = linear_task(0, multi_label=False)[1], test_y.argmax(1)
    reference.fit(x.numpy(), one_hot.argmax(1).numpy())
    want = reference.score(test_x.numpy(), classes.numpy())
    got = knn_probe(x, one_hot, test_x, test_y, neighbors=15, multi_label=False)
    assert (got.metric, got.value) == ("accuracy", pytest.approx(want))


def test_knn_with_one_neighbor_finds_the_clip_itself():
    x, y = linear_task()
    assert knn_probe(x, y, x, y, neighbors=1).value == 1
    assert knn_probe(x, y, 7 * x, y, neighbors=1).value == 1  # the norm has no effect


def test_knn_with_fewer_clips_than_neighbors():
    x, y = linear_task(clips=10)
    assert 0 < knn_probe(x, y, *linear_task(1), neighbors=40).value < 1
