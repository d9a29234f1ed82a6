"""The targets that the teacher computes, above all that of the utterance."""

import numpy as np
import pytest
import torch

from eat.model.encoder import EATEncoder
from eat.pretraining.teacher import EMATeacher

B, N, D, FRAMES, MOMENTUM = 3, 6, 8, 48, 0.75


@pytest.fixture
def encoder():
    torch.manual_seed(1)
    options = {"max_frames": FRAMES, "num_mels": 32}
    return EATEncoder(dim=D, depth=2, num_heads=2, **options)


@pytest.fixture
def spec():
    return torch.randn(B, FRAMES, 32, generator=torch.Generator().manual_seed(2))


def layer_norm(x):
    centered = x - x.mean(axis=-1, keepdims=True)
    return centered / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)


def clip_means(encoder, spec):
    """Return the mean of the layers' patches `[B, D]`, which nothing normalized."""
    layers = encoder(spec, return_ffn=True).ffn_outputs
    return np.mean([x[:, 1:].mean(dim=1).detach().numpy() for x in layers], axis=0)


@pytest.mark.parametrize("momentum", [None, MOMENTUM])
def test_utterance_target_is_the_mean_of_the_patches(encoder, spec, momentum):
    targets = EMATeacher(encoder, momentum, N).targets(spec)
    assert targets.patches.shape == (B, N, D)
    assert torch.equal(targets.utterance, targets.patches.mean(dim=1))


def test_utterance_target_before_the_instance_norm(encoder, spec):
    teacher = EMATeacher(encoder, MOMENTUM, N, utterance_target="clip")
    means = clip_means(encoder, spec)
    np.testing.assert_allclose(
        teacher.targets(spec, True).utterance, layer_norm(means), 1e-4
    )
    teacher.update(encoder, 0.5)
    center = (1 - MOMENTUM) * means.mean(axis=0)
    expected = layer_norm(means - center)
    np.testing.assert_allclose(
        teacher.targets(spec).utterance, expected, rtol=1e-3, atol=1e-5
    )
    # The targets of the patches, their center included, are EAT's.
    plain = EMATeacher(encoder, MOMENTUM, N)
    plain(spec, True)
    plain.update(encoder, 0.5)
    torch.testing.assert_close(teacher(spec), plain(spec))


def test_instance_norm_removes_what_all_patches_share(encoder, spec):
    """Only the target before that norm sees it: why it exists."""
    clip, patches = (
        EMATeacher(encoder, MOMENTUM, N, utterance_target=kind)
        for kind in ("clip", "patches")
    )
    before = clip.targets(spec).utterance, patches.targets(spec).utterance
    with torch.no_grad():
        for teacher in (clip, patches):
            teacher.encoder.blocks[-1].mlp.fc2.bias += torch.arange(D)
    torch.testing.assert_close(
        patches.targets(spec).utterance, before[1], atol=1e-3, rtol=0
    )
    assert (clip.targets(spec).utterance - before[0]).abs().max() > 1


@pytest.mark.parametrize("options", [{"utterance_target": "mean"}, {}])
def test_options_that_contradict_each_other(encoder, options):
    with pytest.raises(ValueError, match="utterance_target"):
        EMATeacher(encoder, **({"utterance_target": "clip"} | options))
