"""Learning rates and groups are the official ones; clipping includes all groups."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from eat.interop.fairseq_weights import our_name
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder
from eat.training.optim import (
    clip_divisor,
    gradient_norm,
    layer_scale,
    parameter_groups,
    set_learning_rates,
    step_unless,
    warmup_cosine,
)

PRETRAINING = {"peak": 5e-4, "warmup": 53_333, "total": 400_000, "floor": 0.0}
FINETUNING = {
    "lr_ft_as2m": {"peak": 5e-5, "warmup": 30_000, "total": 300_000},
    "lr_ft_as20k": {"peak": 5e-5, "warmup": 4_000, "total": 40_000},
    "lr_ft_esc50": {"peak": 5e-5, "warmup": 400, "total": 4_000},
    "lr_ft_spcv2": {"peak": 2e-4, "warmup": 4_000, "total": 40_000},
}
FLOOR = 1e-6


def classifier(depth=3, dim=8):
    encoder = EATEncoder(dim=dim, depth=depth, num_heads=2, max_frames=32)
    return EATClassifier(encoder, num_classes=7)


def one_weight(value=0.0):
    return nn.Parameter(torch.tensor([value]))


def test_pretraining_schedule(pretrain_parity, finetune_parity):
    total = PRETRAINING["total"]
    for schedule in (
        pretrain_parity.numbers["lr_schedule"],
        finetune_parity.numbers["lr_pretrain_base"],
    ):
        assert len(schedule) > 10
        for step, expected in schedule:
            # The official formula restarts at `total`; ours stays at the floor.
            expected = expected if step < total else 0.0
            # At the end the official value is a difference of nearly equal numbers.
            assert warmup_cosine(step, **PRETRAINING) == pytest.approx(
                expected, rel=1e-9, abs=1e-18
            )


@pytest.mark.parametrize("name", FINETUNING)
def test_finetuning_schedules(finetune_parity, name):
    for step, expected in finetune_parity.numbers[name]:
        lr = warmup_cosine(step, **FINETUNING[name], floor=FLOOR)
        assert lr == pytest.approx(expected, rel=1e-9)


def test_rate_after_the_last_step_is_the_floor():
    schedule = {**FINETUNING["lr_ft_esc50"], "floor": FLOOR}
    assert warmup_cosine(4_000, **schedule) == FLOOR
    assert warmup_cosine(9_999, **schedule) == FLOOR


def test_without_warmup_the_first_rate_is_the_peak():
    assert warmup_cosine(0, peak=2.0, warmup=0, total=10) == 2.0
    assert warmup_cosine(10, peak=2.0, warmup=0, total=10) == 0.0


def test_low_blocks_have_the_official_constant_rate(finetune_parity):
    scale = finetune_parity.numbers["lr_scales_base_12"]["blocks.0"]
    groups = [{"params": [one_weight()], "lr_scale": factor} for factor in (scale, 1.0)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule = FINETUNING["lr_ft_as20k"]
    unscaled = dict(finetune_parity.numbers["lr_ft_as20k"])
    for step, expected in finetune_parity.numbers["lr_ft_as20k_block0"]:
        returned = set_learning_rates(optimizer, step, **schedule, floor=FLOOR)
        low, high = (group["lr"] for group in optimizer.param_groups)
        assert low == pytest.approx(expected, rel=1e-9)
        assert high == returned == pytest.approx(unscaled[step], rel=1e-9)


def test_scaled_floor_keeps_the_ratio_of_all_groups():
    groups = [{"params": [one_weight()], "lr_scale": s} for s in (0.01, 1.0)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule = FINETUNING["lr_ft_as20k"]
    for step in (0, 100, 4_000, 30_000, 40_000):
        set_learning_rates(optimizer, step, **schedule, floor=FLOOR, scale_floor=True)
        low, high = (group["lr"] for group in optimizer.param_groups)
        assert low == pytest.approx(0.01 * high, rel=1e-12)


def test_layer_scales_of_every_parameter(finetune_parity):
    official = finetune_parity.numbers["optim_overrides_per_param"]
    ours = {name for name, _ in classifier().named_parameters()}
    seen = set()
    for name, overrides in official.items():
        name = name.removeprefix("model.").replace("fc_norm.", "norm.")
        name = our_name(name) or name
        seen.add(name)
        expected = overrides.get("lr_scale", 1.0)
        assert layer_scale(name, 3, 0.65) == pytest.approx(expected, rel=1e-12)
    assert seen == ours


def test_layer_scales_of_base(finetune_parity):
    scales = finetune_parity.numbers["lr_scales_base_12"]
    assert len(scales) == 12
    for block, expected in scales.items():
        scale = layer_scale(f"encoder.{block}.norm1.weight", 12, 0.65)
        assert scale == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("decay_vectors", [True, False])
def test_every_trainable_parameter_is_in_one_group(decay_vectors):
    model = classifier()
    model.head.bias.requires_grad_(False)
    groups = parameter_groups(model, 0.05, decay_vectors, layer_decay=0.65, depth=3)
    grouped = [id(p) for group in groups for p in group["params"]]
    trainable = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trainable)
    scales = {round(group["lr_scale"], 6) for group in groups}
    assert scales == {0.274625, 0.4225, 0.65, 1.0}


def test_official_run_decays_every_parameter():
    groups = parameter_groups(classifier(), 0.05)
    assert [group["weight_decay"] for group in groups] == [0.05]


def test_weight_decay_can_exclude_vectors(finetune_parity):
    model = classifier()
    groups = parameter_groups(model, 0.05, decay_vectors=False)
    decay_of = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    intended = {
        (our_name(name.removeprefix("model.")) or name).replace("fc_norm", "norm")
        for name in finetune_parity.numbers["effective"]["no_decay_intended"]
    }
    # The CLS token, a vector as well, is not excluded by the official tags.
    excluded = {n for n, p in model.named_parameters() if decay_of[id(p)] == 0}
    assert excluded == intended | {"encoder.cls_token"}
    assert set(decay_of.values()) == {0.0, 0.05}


OPTIMIZERS = {
    "fused AdamW": partial(torch.optim.AdamW, lr=0.1, fused=True),
    "fused SGD": partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True),
    "AdamW": partial(torch.optim.AdamW, lr=0.1, fused=False, foreach=False),
    "Rprop": partial(torch.optim.Rprop, lr=0.1),
}


def two_weights(make):
    """Return an optimizer of two groups, with a gradient each."""
    weights = one_weight(), one_weight()
    for weight, gradient in zip(weights, (3.0, 4000.0), strict=True):
        weight.grad = torch.tensor([gradient])
    return weights, make([{"params": [weight]} for weight in weights])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_step_is_that_of_clipped_gradients(name):
    expected, reference = two_weights(OPTIMIZERS[name])
    norm = torch.nn.utils.clip_grad_norm_(expected, 5.0)
    weights, optimizer = two_weights(OPTIMIZERS[name])
    torch.testing.assert_close(gradient_norm(optimizer), norm)
    step_unless(torch.tensor(0.0), optimizer, clip_divisor(norm, 5.0))
    reference.step()
    for weight, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight, other)
        torch.testing.assert_close(weight.grad, other.grad)
    states = (o.state_dict()["state"] for o in (optimizer, reference))
    torch.testing.assert_close(*states)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_skipped_step_changes_nothing(name):
    weights, optimizer = two_weights(OPTIMIZERS[name])
    step_unless(torch.tensor(0.0), optimizer)
    before = deepcopy((weights, optimizer.state_dict()["state"]))
    weights[0].grad.fill_(torch.nan)
    divisor = clip_divisor(gradient_norm(optimizer), 5.0)
    step_unless(torch.tensor(1.0), optimizer, divisor)
    after = weights, optimizer.state_dict()["state"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("limit", [None, 0, 0.0, -1, 1e9])
def test_without_a_limit_nothing_is_clipped(limit):
    assert clip_divisor(torch.tensor(7.0), limit) == 1.0
