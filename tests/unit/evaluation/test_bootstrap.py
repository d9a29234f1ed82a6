"""Bootstrap intervals against resampling by hand, and against a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eat.evaluation import bootstrap as module
from eat.evaluation.bootstrap import bootstrap, paired_bootstrap
from eat.evaluation.metrics import accuracy, mean_average_precision


def limits(draws, value):
    """The quantiles of draws that are shifted to have the estimate as mean."""
    return np.quantile(draws, [0.025, 0.975]) - np.mean(draws) + value


def scored(noises, seed, clips=150, classes=5):
    """Scores `[S, M, C]` of runs of different noise, and the same targets."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(clips, classes, generator=generator) < 0.3).float()
    generator.manual_seed(seed)
    return torch.stack(
        [targets + n * torch.randn(clips, classes, generator=generator) for n in noises]
    ), targets


def resamples(clips, runs, seed, draws):
    """Draw the rows of clips and of runs, in the order of the implementation."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(clips, (draws, clips), generator=generator)
    return zip(
        chosen, torch.randint(runs, (draws, runs), generator=generator), strict=True
    )


@pytest.mark.parametrize(
    ("metric", "multi_label"), [(mean_average_precision, True), (accuracy, False)]
)
@pytest.mark.parametrize("runs", [1, 3])
def test_paired_equals_resampling_by_hand(metric, multi_label, runs):
    (a, targets), (b, _) = scored([0.5, 0.6, 0.7][:runs], 1), scored([1.0] * runs, 2)
    options = {"seed": 7, "draws": 50, "multi_label": multi_label}
    found = paired_bootstrap(a, b, targets, **options)

    def difference(run, rows):
        return metric(a[run][rows], targets[rows]) - metric(b[run][rows], targets[rows])

    by_hand = [
        np.mean([difference(run, rows) for run in chosen])
        for rows, chosen in resamples(150, runs, seed=7, draws=50)
    ]
    whole = [difference(run, slice(None)) for run in range(runs)]
    assert found.value == pytest.approx(np.mean(whole))
    assert found[1:] == pytest.approx(limits(by_hand, found.value))
    assert found.low < found.value < found.high
    if runs == 1:
        assert found == paired_bootstrap(a[0], b[0], targets, **options)


def test_interval_of_one_model_equals_resampling_by_hand():
    a, targets = scored([0.5, 0.9], 1)
    found = bootstrap(a, targets, seed=3, draws=40)
    by_hand = [
        np.mean([mean_average_precision(a[r][rows], targets[rows]) for r in chosen])
        for rows, chosen in resamples(150, 2, seed=3, draws=40)
    ]
    assert found[1:] == pytest.approx(limits(by_hand, found.value))


def test_interval_of_an_accuracy_is_that_of_a_binomial():
    clips, right = 400, 300
    targets = torch.eye(2)[torch.zeros(clips, dtype=torch.long)]
    scores = targets.clone()
    scores[right:] = scores[right:].flip(1)
    found = bootstrap(scores, targets, multi_label=False, draws=4000)
    width = 1.96 * (0.75 * 0.25 / clips) ** 0.5
    assert found == pytest.approx((0.75, 0.75 - width, 0.75 + width), abs=4e-3)


def test_seeds_widen_the_interval():
    a, targets = scored([0.2, 0.6, 1.5], 1)
    over_both = bootstrap(a, targets, draws=200)
    over_clips = [bootstrap(run, targets, draws=200) for run in a]
    assert over_both.value == pytest.approx(np.mean([i.value for i in over_clips]))
    widest = max(i.high - i.low for i in over_clips)
    assert over_both.high - over_both.low > widest


def test_a_model_and_itself_do_not_differ():
    a, targets = scored([0.5], 1)
    assert paired_bootstrap(a, a, targets, draws=20) == (0, 0, 0)


def test_chunks_do_not_change_the_interval(monkeypatch):
    (a, targets), (b, _) = scored([0.5], 1), scored([0.6], 2)
    whole = paired_bootstrap(a, b, targets, draws=30)
    monkeypatch.setattr(module, "CHUNK", 7 * 150)
    assert paired_bootstrap(a, b, targets, draws=30) == pytest.approx(whole)


def test_runs_that_cannot_be_paired():
    (a, targets), (b, _) = scored([0.5, 0.5], 1), scored([0.6], 2)
    with pytest.raises(ValueError, match="seeds"):
        paired_bootstrap(a, b, targets)


@pytest.mark.slow
def test_intervals_of_small_test_sets_cover_the_mean_of_many():
    sets = [scored([0.7], seed, clips=120, classes=3) for seed in range(150)]
    random = torch.Generator().manual_seed(1)
    everyone = torch.cat([t for _, t in sets]), torch.cat([s[0] for s, _ in sets])
    intervals = []
    for _ in sets:
        rows = torch.randint(len(everyone[0]), (120,), generator=random)
        intervals.append(bootstrap(everyone[1][rows], everyone[0][rows], draws=100))
    expected = np.mean([interval.value for interval in intervals])
    covered = np.mean([i.low <= expected <= i.high for i in intervals])
    assert 0.88 <= covered <= 0.99
