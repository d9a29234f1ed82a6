"""Fine-tuning with few labels: what runs, and what is compared with what."""

import pytest
import torch

from eat.evaluation.bootstrap import bootstrap, paired_bootstrap
from evidence import label_runs
from evidence.labels import (
    LAYER_DECAY,
    LAYER_SEEDS,
    LEARNING_RATES,
    MIN_LR,
    SCALE_MIN_LR,
    SEEDS,
    SHARES,
    STARTS,
    best_learning_rate,
    finetunings,
    held_out,
    layer_decays,
    search,
    write_subset,
)
from evidence.studies import JobFactory, Row

RATES = {(share, start): 0.001 for share in SHARES for start in STARTS}
DEFAULT = Row("default", {})
BLOCKS = 4


@pytest.fixture
def factory(tmp_path):
    """A factory whose manifest has 40 clips."""
    factory = JobFactory(tmp_path)
    factory.manifests.mkdir(parents=True)
    lines = ["ID,wav,label", *(f"{i},{i}.wav,a" for i in range(40))]
    (factory.manifests / "balanced_train.csv").write_text("\n".join(lines) + "\n")
    return factory


def test_both_starting_points_have_one_grid_one_budget_and_the_same_clips(factory):
    of_start = {
        start: [run.job(factory, DEFAULT) for run in search() if run.start == start]
        for start in STARTS
    }
    settings = [
        [job.settings | {"pretrained": None} for job in jobs]
        for jobs in of_start.values()
    ]
    assert settings[0] == settings[1] and len(settings[0]) == 3 * 3 * 2
    assert {s["lr"] for s in settings[0]} == {*LEARNING_RATES}
    assert {job.settings["pretrained"] for job in of_start["scratch"]} == {"none"}
    shares = {s["train_manifest"].split("_seed")[0] for s in settings[0]}
    assert shares == {f"balanced_train_{share}" for share in (5, 20, 80)}
    assert not {run.seed for run in search()} & {*SEEDS}


def test_the_best_learning_rate_is_that_of_the_highest_mean():
    runs = [run for run in search() if (run.share, run.start) == (5, "scratch")]
    low, middle, high = LEARNING_RATES
    scores = {low: [0.5, 0.1], middle: [0.4, 0.3], high: [0.2, 0.2]}
    finished = [(run, scores[run.lr].pop()) for run in runs]
    assert best_learning_rate(finished) == middle


def test_each_seed_draws_its_clips(factory):
    def lines(seed):
        name = write_subset(factory.manifests, 20, seed)
        return (factory.manifests / f"{name}.csv").read_text().splitlines()[1:]

    full = (factory.manifests / "balanced_train.csv").read_text().splitlines()
    assert len(lines(1)) == 8 and {*lines(1)} <= {*full}
    assert lines(1) == lines(1) != lines(2)
    rows = held_out(factory.manifests, write_subset(factory.manifests, 20, 1))
    assert {*rows} == {i for i in range(40) if full[i + 1] not in lines(1)}
    assert held_out(factory.manifests, "balanced_train") == []


def test_the_minimum_is_above_the_rate_of_the_lowest_quarter():
    """As in the official fine-tuning on AS-20K: 1e-6 with a rate of 5e-5."""
    official = [0.65**exponent > 1e-6 / 5e-5 for exponent in range(13, -1, -1)]
    ours = [LAYER_DECAY**k > MIN_LR for k in range(BLOCKS + 1, -1, -1)]
    assert official.index(True) == 1 + 12 // 4  # the embedding and three blocks
    assert ours.index(True) == 1 + BLOCKS // 4
    assert LAYER_DECAY ** (BLOCKS + 1) == pytest.approx(0.65**13, rel=0.1)


def test_comparisons_are_paired_by_seed():
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(40, 3, generator=generator) < 0.4).float()
    runs = [*finetunings(RATES), *layer_decays(0.001)]
    assert len({run.name for run in runs}) == len(runs)
    scores = {run: torch.rand(40, 3, generator=generator) for run in runs}

    def of(share, start, minimum, seeds):
        by_seed = {
            run.seed: scores[run]
            for run in runs
            if (run.share, run.start, run.minimum) == (share, start, minimum)
        }
        return torch.stack([by_seed[seed] for seed in seeds])

    found = label_runs._compare_starts(scores, labels)
    both = [of(5, start, "", SEEDS) for start in ("pretrained", "scratch")]
    expected = paired_bootstrap(*both, labels)._asdict()
    assert found["5"]["difference"] == pytest.approx(expected)

    found = label_runs._compare_layer_decays(scores, labels)
    plain = of(100, "pretrained", "", LAYER_SEEDS)
    assert found["no layer-wise decay"]["mAP"] == bootstrap(plain, labels)._asdict()
    for minimum in SCALE_MIN_LR:
        other = of(100, "pretrained", minimum, LAYER_SEEDS)
        expected = paired_bootstrap(other, plain, labels)._asdict()
        assert found[minimum]["difference"] == pytest.approx(expected)
