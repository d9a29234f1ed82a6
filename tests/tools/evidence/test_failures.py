"""What is broken on purpose is broken as described, and nothing else."""

import math

import numpy as np
import pytest
import torch

from eat.audio.frontend import SAMPLE_RATE, LogMel
from eat.model.encoder import EATEncoder
from evidence.failures import DoubleSpeed, ShuffledFrames, UnnormalizedTeacher

NORM = {"mean": -7.0, "std": 4.0, "num_frames": 96}


def tone(hertz, seconds=1.0):
    time = torch.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return torch.sin(2 * math.pi * hertz * time)[None]


@pytest.mark.parametrize("momentum", [None, 0.75])
def test_targets_are_the_layers_themselves(momentum):
    torch.manual_seed(1)
    encoder = EATEncoder(dim=8, depth=2, num_heads=2, max_frames=32, num_mels=32)
    spec = torch.randn(3, 32, 32)
    teacher = UnnormalizedTeacher(encoder, momentum, num_patches=4)
    layers = encoder(spec, return_ffn=True).ffn_outputs
    mean = np.mean([x[:, 1:].detach().numpy() for x in layers], axis=0)
    targets = teacher.targets(spec, update_center=True)
    np.testing.assert_allclose(targets.patches, mean, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(targets.utterance, mean.mean(axis=1), 1e-3, 1e-7)
    teacher.update(encoder, 0.5)
    center = 0 if momentum is None else (1 - momentum) * mean.mean(axis=0)
    np.testing.assert_allclose(teacher(spec), mean - center, 1e-3, 1e-7)


def test_frames_of_a_clip_are_permuted():
    wav = torch.randn(2, SAMPLE_RATE, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([SAMPLE_RATE, SAMPLE_RATE])
    true, shuffled = (kind(**NORM)(wav, lengths) for kind in (LogMel, ShuffledFrames))
    orders = []
    for one, other in zip(true, shuffled, strict=True):
        assert not torch.equal(one, other)
        orders.append(torch.cdist(other, one).argmin(dim=1).tolist())
        assert sorted(orders[-1]) == list(range(len(one)))
    assert orders[0] != orders[1]
    # The same clip alone, and padded in a longer batch, has the same permutation.
    padded = torch.cat([wav[1:], torch.zeros(1, 4000)], dim=1)
    alone = ShuffledFrames(**NORM)(padded, lengths[1:])
    torch.testing.assert_close(alone[0], shuffled[1])
    silence = ShuffledFrames(**NORM)(torch.zeros(1, SAMPLE_RATE))
    assert silence.isfinite().all()


def test_double_speed_doubles_the_pitch():
    fast = DoubleSpeed(**NORM)(tone(1000), torch.tensor([SAMPLE_RATE]))[0]
    true = LogMel(**NORM)(tone(2000, seconds=0.5))[0]
    fast_peak, true_peak = fast[2:46].max(dim=1), true[2:46].max(dim=1)
    assert torch.equal(fast_peak.indices, true_peak.indices)
    torch.testing.assert_close(fast_peak.values, true_peak.values, atol=1e-2, rtol=0)
    assert torch.equal(fast[48:], true[48:])  # padding
