"""The front end equals torchaudio's Kaldi fbank, clip by clip, in a ragged batch."""

import pytest
import torch
from torchaudio.compliance import kaldi

from eat.audio.frontend import LogMel, num_frames_of

MEAN, STD = -4.268, 4.569


def reference(clip, num_frames):
    """The official steps for one clip: mean, fbank, raw zeros, normalization."""
    padded = torch.zeros(num_frames, 128)
    if len(clip) < 400:  # torchaudio refuses clips shorter than a window
        return (padded - MEAN) / (2 * STD)
    fbank = kaldi.fbank(
        (clip - clip.mean())[None],
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )[:num_frames]
    padded[: len(fbank)] = fbank
    return (padded - MEAN) / (2 * STD)


def noise(seed, length, offset=0.05):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, generator=generator) * 0.1 + offset


def tone(length):
    """A pure tone, the hardest case: other bands contain only rounding errors."""
    return 0.5 * torch.sin(torch.arange(length) * 0.3)


def test_ragged_batch_equals_torchaudio():
    clips = [noise(0, 40000), noise(1, 31234), tone(16000)]
    clips += [noise(2, 399), noise(3, 400)]
    lengths = torch.tensor([len(clip) for clip in clips])
    wav = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    spec = LogMel(MEAN, STD, 160)(wav, lengths)
    assert spec.shape == (5, 160, 128)
    for clip, row in zip(clips, spec, strict=True):
        expected = reference(clip, 160)
        torch.testing.assert_close(row, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("after", [0.0, 3.0, torch.nan])
def test_a_clip_does_not_depend_on_what_it_is_batched_with(after):
    """Neither on the samples after its end, to the last bit."""
    lengths = torch.tensor([20000, 16000, 399, 0])
    wav = torch.stack([noise(seed, 20000) for seed in range(4)])
    inside = torch.arange(20000) < lengths[:, None]
    frontend = LogMel(MEAN, STD, 128)
    batch = frontend(wav.where(inside, after), lengths)
    for row, clip, length in zip(batch, wav, lengths.tolist(), strict=True):
        assert torch.equal(row, frontend(clip[None, :length])[0])


def test_all_clips_at_once():
    """On a CPU they are computed one by one, elsewhere at once."""
    lengths = torch.tensor([20000, 12345, 300])
    wav = torch.stack([noise(seed, 20000) for seed in range(3)])
    frontend = LogMel(0.0, 0.5, 128)  # no normalization
    found = frontend._raw(wav, lengths, 128)
    expected = frontend(wav, lengths)[:, : found.shape[1]]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_official_statistics_of_padding(misc_parity):
    """10 s are 998 frames; the 26 padded ones are the normalized raw zero."""
    expected = misc_parity.numbers["fbank.inference"]
    assert num_frames_of(expected["samples_16k"]) == expected["frames_before_pad"]
    spec = LogMel(MEAN, STD, expected["target_length"])(noise(0, 160000)[None])
    padding = spec[0, expected["frames_before_pad"] :]
    torch.testing.assert_close(padding, torch.full((26, 128), expected["pad_value"]))


def test_official_frames(misc_parity):
    """The first frames of a clip equal those of the official code."""
    for name in ("inference", "feature_extract"):
        wav = misc_parity[f"fbank.{name}.wav16k_first400"]
        # The fixture's 400 samples are one window. The mean of the whole clip was
        # subtracted from them, which subtracting the window's own mean undoes.
        spec = LogMel(MEAN, STD, 16)(wav[None])
        expected = misc_parity[f"fbank.{name}.first"][0]
        torch.testing.assert_close(spec[0, 0], expected, atol=1e-3, rtol=0)


def test_autocast_has_no_effect():
    wav = noise(0, 16000)[None]
    frontend = LogMel(MEAN, STD, 96)
    with torch.autocast("cpu", torch.bfloat16):
        spec = frontend(wav)
    assert spec.dtype == torch.float32
    assert torch.equal(spec, frontend(wav))


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1), (560, 2)])
def test_num_frames(samples, frames):
    assert num_frames_of(samples) == frames
    assert num_frames_of(torch.tensor([samples])).tolist() == [frames]
