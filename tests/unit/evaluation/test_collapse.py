"""Collapse signals against closed forms and the official run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eat.errors import CollapseError
from eat.evaluation.collapse import (
    CollapseMonitor,
    between_clip_variance,
    effective_rank,
    feature_std,
)

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_feature_std_equals_the_official_logs():
    tensors = load_file(PARITY / "pretrain.safetensors")
    logged = json.loads((PARITY / "pretrain.json").read_text())
    mask = tensors["masks"].bool()
    clones = len(mask) // len(tensors["targets"])
    targets = tensors["targets"].repeat_interleave(clones, dim=0)[mask]
    predictions = tensors["decoder_out"][mask]
    assert feature_std(targets).item() == pytest.approx(logged["target_var"], rel=1e-5)
    assert feature_std(predictions).item() == pytest.approx(
        logged["pred_var"], rel=1e-5
    )


def test_feature_std_of_constant_rows_is_the_square_root_of_its_epsilon():
    assert feature_std(torch.full((9, 4), 2.5)).item() == pytest.approx(1e-3)


@pytest.mark.parametrize("clips", [2, 3, 6, 48])
def test_between_clip_variance_of_independent_tokens_is_one(clips):
    assert between_clip_variance(normal(clips, 64, 96)).item() == pytest.approx(
        1, abs=0.03
    )


def test_between_clip_variance_of_a_function_of_position_is_zero():
    x = normal(1, 64, 48).expand(6, -1, -1)
    assert between_clip_variance(x).item() == pytest.approx(0, abs=1e-6)


def test_between_clip_variance_of_a_function_of_the_clip_is_one():
    assert between_clip_variance(
        normal(6, 1, 48).expand(-1, 64, -1)
    ).item() == pytest.approx(1)


@pytest.mark.parametrize("clips", [2, 6, 24])
def test_between_clip_variance_of_a_mixture_is_its_share(clips):
    position = 3.0 * normal(1, 128, 256, seed=1)
    clip, token = normal(clips, 1, 256, seed=2), normal(clips, 128, 256, seed=3)
    # Variances 9 (positions), 1 + 1 (clips and residual).
    got = between_clip_variance(5 + position + clip + token).item()
    assert got == pytest.approx(2 / 11, abs=0.02)


def test_between_clip_variance_of_one_clip_or_a_constant_is_nan():
    assert math.isnan(between_clip_variance(normal(1, 8, 4)))
    assert math.isnan(between_clip_variance(torch.ones(4, 8, 4)))


@pytest.mark.parametrize("rows", [400, 30])
@pytest.mark.parametrize("rank", [1, 5, 20])
def test_effective_rank_of_evenly_spread_data_is_its_rank(rows, rank):
    axes = torch.linalg.qr(normal(64, rank, seed=1)).Q
    spread = normal(rows, rank)
    spread = torch.linalg.qr(spread - spread.mean(0)).Q
    assert effective_rank(3 + spread @ axes.T).item() == pytest.approx(rank, rel=1e-3)


def test_effective_rank_of_two_uneven_directions():
    x = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]])  # variances 9 : 1
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert effective_rank(x).item() == pytest.approx(math.exp(entropy))


def test_effective_rank_is_the_same_under_autocast():
    x = normal(200, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert effective_rank(x) == effective_rank(x.double())


def record(target=0.99, prediction=0.7, share=0.9):
    return {
        "target_std": target,
        "prediction_std": prediction,
        "between_clip_variance": share,
    }


def test_monitor_accepts_healthy_and_unknown_signals():
    monitor = CollapseMonitor(
        warn_std=0.3, warn_between_clip_variance=0.5, stop_between_clip_variance=0.1
    )
    assert monitor.check(0, record()) == []
    assert monitor.check(1, record(share=math.nan)) == []


def test_monitor_names_each_signal_and_a_remedy():
    monitor = CollapseMonitor(warn_std=0.3, warn_between_clip_variance=0.5)
    (positional,) = monitor.check(0, record(share=0.2))
    assert "between_clip_variance 0.2 < 0.5" in positional
    assert "position_scale" in positional
    targets, predictions = monitor.check(1, record(target=0.1, prediction=0.1))
    assert "target_std 0.1 < 0.3" in targets and "EMA" in targets
    assert "prediction_std 0.1 < 0.3" in predictions


def test_monitor_repeats_a_warning_only_after_recovery():
    monitor = CollapseMonitor(warn_std=0.3, warn_between_clip_variance=0.5)
    shares = [0.2, 0.2, math.nan, 0.2, 0.9, 0.2]
    counts = [len(monitor.check(i, record(share=s))) for i, s in enumerate(shares)]
    assert counts == [1, 0, 0, 0, 0, 1]


def test_monitor_stops_after_the_grace_period():
    monitor = CollapseMonitor(
        warn_std=0.3,
        warn_between_clip_variance=0.5,
        stop_std=0.01,
        stop_between_clip_variance=0.05,
        grace_steps=100,
    )
    assert monitor.check(99, record(target=0.001, share=0.001)) == []
    with pytest.raises(CollapseError, match="100.*target_std") as error:
        monitor.check(100, record(target=0.001))
    assert "\n" not in str(error.value)
    with pytest.raises(CollapseError, match="between_clip_variance"):
        monitor.check(101, record(share=0.01))
