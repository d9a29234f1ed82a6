import math

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torchaudio.compliance.kaldi import fbank

from eat.audio.frontend import LogMel
from eat.audio.statistics import LogMelStatistics

LENGTHS = [400, 559, 560, 8000, 16001, 12345]


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(0)
    loudness = [1.0, 0.01, 0.3, 0.1, 1e-4, 0.5]
    return [
        volume * (2 * torch.rand(length, generator=generator) - 1) + 0.1
        for length, volume in zip(LENGTHS, loudness, strict=True)
    ]


@pytest.fixture(scope="module")
def kaldi_bins(clips):
    """All bins of torchaudio's Kaldi filter bank, clip by clip."""
    options = {
        "htk_compat": True,
        "sample_frequency": 16000,
        "use_energy": False,
        "window_type": "hanning",
        "num_mel_bins": 128,
        "dither": 0.0,
        "frame_shift": 10,
    }
    return torch.cat([fbank((c - c.mean())[None], **options) for c in clips]).double()


def statistics(clips, batch_size):
    result = LogMelStatistics()
    for start in range(0, len(clips), batch_size):
        batch = clips[start : start + batch_size]
        lengths = torch.tensor([len(clip) for clip in batch])
        result.update(pad_sequence(batch, batch_first=True), lengths)
    return result


@pytest.mark.parametrize("batch_size", [1, 2, 6])
def test_equal_those_of_kaldi_features_for_any_batch_size(
    clips, kaldi_bins, batch_size
):
    result = statistics(clips, batch_size)
    assert result.frames == len(kaldi_bins) == 1 + 1 + 2 + 48 + 98 + 75
    assert result.mean == pytest.approx(kaldi_bins.mean().item(), abs=1e-5)
    expected = kaldi_bins.std(unbiased=False).item()
    assert result.std == pytest.approx(expected, abs=1e-5)


def test_the_front_end_then_has_mean_0_and_std_a_half(clips):
    found = statistics(clips, 3)
    specs = [
        LogMel(found.mean, found.std, (len(clip) - 400) // 160 + 1)(clip[None])[0]
        for clip in clips
    ]
    bins = torch.cat(specs).double()
    assert bins.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert bins.std(unbiased=False).item() == pytest.approx(0.5, abs=1e-6)


def test_padding_and_clips_without_a_frame_are_ignored(clips):
    alone = statistics(clips[:1], 1)
    padded = LogMelStatistics()
    wav = torch.zeros(2, 16000)
    wav[0, :400], wav[1, :399] = clips[0], 1.0
    padded.update(wav, torch.tensor([400, 399]))
    assert padded.frames == 1
    # The filter bank of a longer batch sums in a different order.
    assert padded.mean == pytest.approx(alone.mean, rel=1e-7)
    assert padded.std == pytest.approx(alone.std, rel=1e-7)


@pytest.mark.slow
def test_many_equal_batches_lose_no_precision(clips):
    once, often = LogMelStatistics(), LogMelStatistics()
    wav, lengths = clips[0][None], torch.tensor([400])
    once.update(wav, lengths)
    for _ in range(1000):
        often.update(wav, lengths)
    assert often.mean == pytest.approx(once.mean, rel=1e-14)
    assert often.std == pytest.approx(once.std, rel=1e-13)


def test_no_frames_give_nan():
    empty = LogMelStatistics()
    empty.update(torch.zeros(1, 100), torch.tensor([100]))
    assert empty.frames == 0 and math.isnan(empty.mean) and math.isnan(empty.std)
