"""Probes of tokens: their parts against direct formulas; they find a hidden event."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from eat.errors import ExperimentError
from eat.evaluation import probe_training
from eat.evaluation.probe_suite import run_probe, summarize
from eat.evaluation.probe_training import TOKEN_PROBES, token_probe
from eat.evaluation.probing import clip_losses, split_rows
from eat.evaluation.token_probes import (
    AttentivePooling,
    ConvexGatedProbe,
    ProtoBin,
    extremes,
)

BOTH = torch.argmin, torch.argmax


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_extremes_and_their_gradients_equal_those_of_all_inner_products():
    tokens, prototypes = random(3, 7, 5), random(4, 5, seed=1)
    inputs = tokens.requires_grad_(), prototypes.requires_grad_()
    found = torch.stack(extremes(*inputs, *BOTH))
    products = tokens @ prototypes.T
    want = torch.stack([products.amin(1), products.amax(1)])
    torch.testing.assert_close(found, want)
    gradients = [torch.autograd.grad(x.square().sum(), inputs) for x in (found, want)]
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected)


def test_attentive_pooling_is_a_weighted_mean_of_normalized_tokens():
    probe, tokens = AttentivePooling(1, 8, 3), random(2, 1, 6, 8)
    x = F.layer_norm(tokens[:, 0], (8,))
    shares = (torch.einsum("qd,bnd->bqn", probe.queries, x) / 8**0.5).softmax(-1)
    pooled = torch.einsum("bqn,bnd->bqd", shares, x).flatten(1)
    torch.testing.assert_close(probe(tokens), probe.classifier(pooled))


def test_protobin_is_the_best_cosine_with_signs():
    probe, tokens = ProtoBin(1, 8, 2).eval(), random(2, 1, 6, 8)
    patches, signs = tokens[:, 0, 1:], probe.prototypes.sign()
    cosines = F.cosine_similarity(patches[:, :, None], signs[None, None], dim=-1)
    want = probe.classifier(cosines.amax(1))
    torch.testing.assert_close(probe(tokens), want)
    probe(tokens).sum().backward()
    assert probe.prototypes.grad.abs().sum() > 0  # straight through the sign


def test_cgp_pools_a_convex_combination_of_layers():
    probe, tokens = ConvexGatedProbe(3, 8, 2).eval(), random(2, 3, 6, 8)
    torch.nn.init.normal_(probe.gate)
    shares = probe.gate.softmax(0)
    x = sum(share * F.normalize(tokens[:, n], dim=-1) for n, share in enumerate(shares))
    similar = x @ F.normalize(probe.prototypes, dim=-1).T
    parts = [similar[:, 1:].amin(1), similar[:, 1:].amax(1), similar[:, 0]]
    torch.testing.assert_close(probe(tokens), probe.classifier(torch.cat(parts, dim=1)))


def hidden_event(seed, clips=160, tokens=12, dim=16):
    """Noise; where the label is set, one token of one layer is the event of it."""
    generator = np.random.default_rng(seed)
    layers = generator.normal(size=(2, clips, tokens, dim)).astype(np.float16)
    labels = generator.random((clips, 2)) < 0.5
    events = 5 * np.random.default_rng(99).normal(size=(2, dim))
    for clip, label in zip(*np.nonzero(labels), strict=True):
        layers[1, clip, generator.integers(1, tokens)] = events[label]
    return list(layers), torch.from_numpy(labels).float()


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(TOKEN_PROBES))
def test_probes_of_tokens_find_an_event_that_the_mean_hides(kind, monkeypatch):
    monkeypatch.setattr(probe_training, "EPOCHS", 12)
    (train_x, train_y), (test_x, test_y) = hidden_event(0), hidden_event(1)
    data = train_x, train_y, test_x, test_y
    run = [run_probe(kind, *data, seed=seed) for seed in (3, 3)]
    assert torch.equal(run[0].scores, run[1].scores)  # deterministic in the seed
    assert run[0].value > 0.9
    report = summarize(run, test_y, run)
    assert (
        report["by_seed"] == [run[0].value] * 2
        and report["model_minus_this"]["value"] == 0
    )


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "lr"), [(False, 0.1), (True, 1e-3)])
def test_held_out_clips_choose_and_test_labels_do_not(monkeypatch, noise, lr):
    """Each candidate is trained by hand on what is not held out."""
    train_x, train_y = hidden_event(0, clips=60)
    test_x, test_y = hidden_event(1, clips=20)
    if noise:  # the more is learned, the worse
        train_y = hidden_event(5, clips=60)[1]
    grid = [(a, b) for a in (0.1, 1e-3) for b in (0.1, 30.0)]
    monkeypatch.setattr(probe_training, "EPOCHS", 4)

    def run(lrs, decays, *data):
        monkeypatch.setattr(probe_training, "LEARNING_RATES", lrs)
        monkeypatch.setattr(probe_training, "WEIGHT_DECAYS", decays)
        return token_probe("attentive", *data, seed=3)

    fitted, held_out = (rows.numpy() for rows in split_rows(60, 3))
    fit, held = (
        ([layer[rows] for layer in train_x], train_y[rows])
        for rows in (fitted, held_out)
    )
    losses = [
        clip_losses(run((a,), (b,), *fit, *held).scores, held[1], True).mean()
        for a, b in grid
    ]
    found = run((0.1, 1e-3), (0.1, 30.0), train_x, train_y, test_x, test_y)
    best = grid[int(np.argmin(losses))]
    assert tuple(found.chosen.values()) == best and best[0] == lr
    flipped = run((0.1, 1e-3), (0.1, 30.0), train_x, train_y, test_x, 1 - test_y)
    assert torch.equal(flipped.scores, found.scores) and flipped.chosen == found.chosen


def test_a_learning_rate_that_diverges_is_not_chosen(monkeypatch):
    layers, labels = hidden_event(0, clips=40)
    monkeypatch.setattr(probe_training, "EPOCHS", 2)
    monkeypatch.setattr(probe_training, "LEARNING_RATES", (1e30, 0.01))
    found = token_probe("attentive", layers, labels, layers, labels)
    assert found.chosen["lr"] == 0.01
    monkeypatch.setattr(probe_training, "LEARNING_RATES", (1e30,))
    with pytest.raises(ExperimentError, match="finite"):
        token_probe("attentive", layers, labels, layers, labels)


@pytest.mark.slow
def test_single_label_tasks_are_trained_by_cross_entropy(monkeypatch):
    monkeypatch.setattr(probe_training, "EPOCHS", 6)
    data = []
    for seed in (0, 1):
        layers, labels = hidden_event(seed)
        one_hot = F.one_hot(labels[:, 0].long(), 2)
        data += [layers, one_hot]
    found = token_probe("protobin", *data, multi_label=False)
    assert found.metric == "accuracy" and found.value > 0.8


def test_a_probe_that_does_not_exist():
    layers, labels = hidden_event(0)
    with pytest.raises(ValueError, match="median"):
        run_probe("median", layers, labels, layers, labels)
