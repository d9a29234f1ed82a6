"""Statistics without a network: padding is ignored, the DCT is torchaudio's."""

import torch
from torchaudio.functional import create_dct

from eat.evaluation.baselines import dct_matrix, log_mel_statistics, mfcc_statistics


def test_statistics_ignore_padding():
    spec = torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(0))
    frames = torch.tensor([20, 7, 1])
    padded = spec.clone()
    padded[1, 7:], padded[2, 1:] = 1e3, -1e3
    got = log_mel_statistics(padded, frames)
    cepstra = mfcc_statistics(padded, frames, coefficients=3)
    assert got.shape == (3, 8) and cepstra.shape == (3, 6)
    for clip, row, other, count in zip(spec, got, cepstra, frames, strict=True):
        for values, found in ((clip, row), (clip @ create_dct(3, 4, "ortho"), other)):
            real = values[:count]
            want = torch.cat([real.mean(0), real.std(0, unbiased=False)])
            torch.testing.assert_close(found, want)


def test_dct_equals_torchaudios():
    want = create_dct(40, 128, norm="ortho")
    torch.testing.assert_close(dct_matrix(128, 40), want)
