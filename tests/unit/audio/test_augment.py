from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio.functional
from safetensors.torch import load_file

from eat.audio import augment
from eat.audio.augment import (
    mix_with_flipped,
    mixup,
    noise_and_shift,
    roll_and_gain,
    spec_augment,
)
from eat.utils.random import uniform

PARITY = Path(__file__).parents[2] / "fixtures" / "parity" / "finetune.safetensors"


def generator(seed=0):
    return np.random.default_rng(seed)


def batch_of_ramps(lengths):
    """Rows 1, 2, ... length, then zeros: each value identifies its position."""
    position = torch.arange(max(lengths)) + 1.0
    return position * (position <= torch.tensor(lengths)[:, None])


def test_roll_and_gain_is_a_circular_roll_within_each_clip():
    lengths = [50, 1, 37, 50]
    wav = batch_of_ramps(lengths)
    out = roll_and_gain(wav, torch.tensor(lengths), generator())
    for clip, source, length in zip(out, wav, lengths, strict=True):
        gain = clip.sum() / source.sum()
        assert 0.5 < gain < 1.5
        shift = int((clip[:length] / gain).round().argmin())
        expected = gain * source[:length].roll(shift)
        torch.testing.assert_close(clip[:length], expected)
        assert not clip[length:].any()


def test_shifts_are_uniform_and_gains_are_beta():
    draws, length = 20000, 8
    lengths = torch.full((draws,), length)
    wav = batch_of_ramps([length]).expand(draws, -1)
    out = roll_and_gain(wav, lengths, generator())
    gain = out.sum(1) / wav.sum(1)
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert gain.mean() == pytest.approx(1.0, abs=0.003)
    assert gain.var() == pytest.approx(1 / 84, rel=0.04)
    shift = out.argmin(dim=1)
    counts = torch.bincount(shift, minlength=length) / draws
    assert (counts - 1 / length).abs().max() < 0.01


def test_roll_and_gain_follows_its_generator_only():
    wav, lengths = torch.randn(4, 100), torch.tensor([100, 80, 60, 40])
    first = roll_and_gain(wav, lengths, generator(1))
    torch.manual_seed(123)
    assert torch.equal(first, roll_and_gain(wav, lengths, generator(1)))
    assert not torch.equal(first, roll_and_gain(wav, lengths, generator(2)))


def test_mixing_equals_the_official_numbers():
    parity = load_file(PARITY)
    spec, labels = mix_with_flipped(parity["x"], parity["y"], 0.3)
    torch.testing.assert_close(spec[..., :16], parity["mixup_x_first16cols"])
    torch.testing.assert_close(labels, parity["mixup_y"])


def test_middle_clip_of_an_odd_batch_is_unchanged():
    spec, labels = torch.randn(3, 4, 5), torch.eye(3)
    mixed, mixed_labels = mix_with_flipped(spec, labels, 0.25)
    torch.testing.assert_close(mixed[1], spec[1])
    torch.testing.assert_close(mixed[0], 0.25 * spec[0] + 0.75 * spec[2])
    assert mixed_labels.tolist() == [[0.25, 0, 0.75], [0, 1, 0], [0.75, 0, 0.25]]


def lambdas(alpha, probability, draws=4000):
    """Return the lambda of many mixups, taken from a batch of one-hot labels."""
    gen, spec, labels = generator(), torch.zeros(2, 1, 1), torch.eye(2)
    return torch.stack(
        [mixup(spec, labels, alpha, probability, gen)[1][0, 0] for _ in range(draws)]
    )


def test_lambda_is_beta():
    lam = lambdas(alpha=0.8, probability=1.0)
    assert lam.mean() == pytest.approx(0.5, abs=0.02)
    assert lam.var() == pytest.approx(1 / (4 * 2.6), rel=0.05)


def test_probability_of_mixing_a_batch():
    unmixed = (lambdas(alpha=0.8, probability=0.9) == 1.0).float().mean()
    assert unmixed == pytest.approx(0.1, abs=0.015)
    assert (lambdas(alpha=0.8, probability=0.0, draws=50) == 1.0).all()
    assert (lambdas(alpha=0.0, probability=1.0, draws=50) == 1.0).all()


def test_clip_and_label_share_one_lambda():
    spec = torch.eye(2)[:, None, :].expand(2, 3, 2)
    mixed, labels = mixup(spec, torch.eye(2), 0.8, 1.0, generator(3))
    torch.testing.assert_close(mixed, labels[:, None, :].expand(2, 3, 2))


@pytest.mark.parametrize("ratio", [0.2, 0.4])
def test_spec_augment_equals_torchaudio_given_the_same_draws(ratio, monkeypatch):
    spec, draws = torch.randn(8, 96, 64), []

    def recorded(*arguments):
        draws.append(uniform(*arguments))
        return draws[-1]

    def replayed(shape, **options):
        return draws.pop(0).view(shape)

    monkeypatch.setattr(augment, "uniform", recorded)
    for seed in range(20):
        found = spec_augment(spec, ratio, generator(seed))
        expected = spec[:, None]
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", replayed)
            for axis, size in ((3, 64), (2, 96)):
                expected = torchaudio.functional.mask_along_axis_iid(
                    expected, size * ratio, 0.0, axis
                )
        assert torch.equal(found, expected[:, 0]) and not draws


def test_spec_augment_masks_one_band_and_one_interval():
    spec = torch.ones(300, 50, 40)
    out = spec_augment(spec, 0.2, generator())
    masked = out == 0
    band, interval = masked.all(dim=1), masked.all(dim=2)
    assert torch.equal(masked, band[:, None, :] | interval[:, :, None])
    for mask, widest in ((band, 8), (interval, 10)):
        width = mask.sum(dim=1)
        assert width.max() == widest - 1  # floor(U[0, 1) * widest)
        assert width.min() == 0
        edges = (mask[:, 1:] != mask[:, :-1]).sum(dim=1)
        assert edges.max() <= 2  # contiguous
    assert torch.equal(spec_augment(spec, 0.0, generator()), spec)


def shift_of(clip, source):
    """Shifts that turn a clip of integers into `clip`, without the noise."""
    return [s for s in range(-10, 10) if torch.equal(clip.floor(), source.roll(s, 0))]


def test_shift_is_a_circular_roll_along_time():
    # Integers plus noise below 0.1: the floor is the rolled clip.
    spec = torch.arange(40 * 24 * 8.0).reshape(40, 24, 8)
    out = noise_and_shift(spec, generator())
    shifts = [shift_of(clip, source) for clip, source in zip(out, spec, strict=True)]
    assert all(len(found) == 1 for found in shifts)
    assert len({found[0] for found in shifts}) > 10  # each clip has its own


def test_shifts_are_uniform_from_minus_10_to_9():
    draws = 20000
    spec = torch.arange(30.0)[None, :, None].expand(draws, -1, 1)
    first = noise_and_shift(spec, generator())[:, 0, 0].floor().long()  # -shift mod 30
    shift = torch.where(first > 15, 30 - first, -first)
    counts = torch.bincount(shift + 10, minlength=20)
    assert len(counts) == 20
    assert (counts / draws - 1 / 20).abs().max() < 0.007  # 4 standard deviations


def test_noise_is_a_draw_per_bin_times_a_draw_per_clip():
    clips = 4000
    noise = noise_and_shift(torch.zeros(clips, 50, 40), generator()) * 10
    assert 0 <= noise.min() and noise.max() < 1
    # Given v the bins are U[0, v): mean v/2, variance v^2/12, largest nearly v.
    scale = noise.amax(dim=(1, 2))
    flat = noise.flatten(1) / scale[:, None]
    torch.testing.assert_close(
        flat.mean(1), torch.full((clips,), 0.5), rtol=0, atol=0.04
    )
    assert flat.var() == pytest.approx(1 / 12, rel=0.01)
    # Across clips v is U[0, 1).
    quantiles = scale.quantile(torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]))
    expected = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    torch.testing.assert_close(quantiles, expected, rtol=0, atol=0.03)


def test_noise_and_shift_follow_their_generator_only():
    spec = torch.randn(4, 20, 16)
    before, first = spec.clone(), noise_and_shift(spec, generator(1))
    torch.manual_seed(123)
    assert torch.equal(first, noise_and_shift(spec, generator(1)))
    assert not torch.equal(first, noise_and_shift(spec, generator(2)))
    assert torch.equal(spec, before)
