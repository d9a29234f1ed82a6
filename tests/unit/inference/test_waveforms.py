"""Batches of waveforms are split into clips; what is no audio is refused."""

import numpy as np
import pytest
import torch
from torchaudio.functional import resample

from eat.inference.waveforms import split_waveforms

WAV = torch.rand(2, 1000, generator=torch.Generator().manual_seed(0)) - 0.5


RAGGED = [WAV[0], WAV[1, :300]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("wavs", "options"),
    [
        (WAV, {"wav_lens": torch.tensor([1.0, 0.3])}),
        (WAV, {"wav_lens": [1, 0.3001]}),
        (WAV.numpy(), {"lengths": np.array([1000, 300])}),
        (WAV.double(), {"lengths": [1000, 300]}),
        (RAGGED, {}),
        ((WAV[0].numpy(), WAV[1, :300].numpy().astype(np.float64)), {}),
        ([WAV[0].numpy().astype(">f4"), WAV[1, :300].flip(0).numpy()[::-1]], {}),
        ([np.frombuffer(wav.numpy().tobytes(), np.float32) for wav in RAGGED], {}),
    ],
)
def test_the_same_clips_in_every_form(wavs, options):
    first, second = split_waveforms(wavs, **options)
    assert torch.equal(first, WAV[0]) and torch.equal(second, WAV[1, :300])


def test_a_single_clip_is_a_batch_of_one():
    (clip,) = split_waveforms(WAV[0].numpy())
    assert torch.equal(clip, WAV[0])


def test_each_clip_is_resampled_without_its_padding():
    found = split_waveforms(WAV, lengths=[1000, 300], sample_rate=44100)
    for clip, wav in zip(found, (WAV[0], WAV[1, :300]), strict=True):
        torch.testing.assert_close(clip, resample(wav, 44100, 16000))


NAN = torch.tensor([[0.1, float("nan")], [0.1, 0.2]])


@pytest.mark.parametrize(
    ("wavs", "options", "named"),
    [
        (torch.zeros(2, 9, dtype=torch.int16), {}, "wavs"),
        (np.zeros(9, np.uint8), {}, "wavs"),
        ([torch.zeros(9), np.zeros(9, int)], {}, r"wavs\[1\]"),
        (torch.zeros(2, 9, dtype=torch.complex64), {}, "wavs"),
        (np.array([np.zeros(9), np.zeros(8)], dtype=object), {}, "wavs"),
        ([WAV[0], WAV[1] * 32768], {}, r"wavs\[1\]"),
        (torch.zeros(2, 1, 9), {}, "wavs"),
        (torch.zeros(900, 2), {}, "wavs"),
        ([torch.zeros(1, 9)], {}, r"wavs\[0\]"),
        ([0.1, 0.2], {}, r"wavs\[0\]"),
        ("dog.wav", {}, "wavs"),
        ([], {}, "wavs"),
        (torch.zeros(0, 9), {}, "wavs"),
        (torch.zeros(2, 0), {}, r"wavs\[0\]"),
        ([torch.zeros(9), torch.zeros(0)], {}, r"wavs\[1\]"),
        (NAN, {}, r"wavs\[0\]"),
        (NAN.flip(0).nan_to_num(torch.inf), {}, r"wavs\[1\]"),
        (WAV, {"wav_lens": [0.5]}, "wav_lens"),
        (WAV, {"wav_lens": [0.5, 0]}, "wav_lens"),
        (WAV, {"wav_lens": [0.5, 1.1]}, "wav_lens"),
        (WAV, {"wav_lens": [0.5, float("nan")]}, "wav_lens"),
        (WAV, {"wav_lens": [1000, 300]}, "wav_lens"),
        (WAV, {"wav_lens": [1, 0.0001]}, r"wavs\[1\]"),
        (WAV, {"lengths": [1.0, 0.3]}, "lengths"),
        (WAV, {"lengths": [1000, 0]}, "lengths"),
        (WAV, {"lengths": [1001, 300]}, "lengths"),
        (WAV, {"lengths": [1000, 300], "wav_lens": [1, 0.3]}, "lengths"),
        ([WAV[0]], {"lengths": [300]}, "wavs"),
        (WAV, {"sample_rate": 0}, "sample_rate"),
        (WAV, {"sample_rate": None}, "sample_rate"),
        (WAV, {"sample_rate": float("inf")}, "sample_rate"),
        (WAV, {"sample_rate": 44100.5}, "sample_rate"),
    ],
)
def test_wrong_batches_are_refused_by_name(wavs, options, named):
    with pytest.raises(ValueError, match=f"^{named}[: ]") as caught:
        split_waveforms(wavs, **options)
    assert "\n" not in str(caught.value)
