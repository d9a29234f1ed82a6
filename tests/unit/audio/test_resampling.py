import math
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.functional

from eat.audio.resampling import _filter_size, resample

ORDINARY = [8000, 11025, 12000, 22050, 24000, 32000, 44100, 48000, 96000, 192000]
ODD = [1009, 4001, 11127, 15999, 16001, 22254, 44056, 44101, 47999, 191999, 767999]


def tones(rate, target, seconds):
    """Tones far below both rates' limits, with a gradual beginning and end."""
    time = np.arange(int(seconds * rate)) / rate
    highest = 0.35 * min(rate, target)
    frequencies = highest * np.array([0.1, 0.35, 0.7, 1])
    wav = sum(0.15 * np.sin(2 * np.pi * f * time + f) for f in frequencies)
    return (wav * np.sin(np.pi * time / seconds) ** 2).astype(np.float32)


@pytest.mark.parametrize("rate", ORDINARY)
def test_ordinary_rates_are_bitwise_torchaudio(rate):
    wav = torch.tensor(tones(rate, 16000, 0.5))
    expected = torchaudio.functional.resample(wav, rate, 16000)
    assert torch.equal(resample(wav, rate, 16000), expected)


@pytest.mark.parametrize("samples", [2**16 - 1, 2**16, 2**17 + 1, 480_000])
@pytest.mark.parametrize("rate", [8000, 24000, 32000, 44100, 48000])
def test_long_waveforms_are_bitwise_torchaudio(rate, samples):
    """Several periods of these are resampled at once."""
    wav = torch.rand(samples, generator=torch.Generator().manual_seed(samples)) - 0.5
    wav[1000:3000] = 0
    found = resample(wav, rate, 16000)
    expected = torchaudio.functional.resample(wav, rate, 16000)
    if torch.backends.mkldnn.is_available():
        assert torch.equal(found.view(torch.int32), expected.view(torch.int32))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", ODD)
def test_odd_rates_are_near_the_truth(rate):
    resampled = resample(torch.tensor(tones(rate, 16000, 1)), rate, 16000)
    assert len(resampled) == 16000
    expected = torch.tensor(tones(16000, rate, 1))
    assert (resampled - expected).abs().max() < 1e-3


@pytest.mark.parametrize("rate", [11127, 44101])
def test_odd_rates_are_near_ffmpeg(tmp_path, rate):
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    wav = tones(rate, 16000, 1)
    soundfile.write(tmp_path / "a.wav", wav, rate, "FLOAT")
    command = f"ffmpeg -loglevel error -i {tmp_path}/a.wav -ar 16000 -f f32le -"
    raw = subprocess.run(command.split(), capture_output=True, check=True).stdout
    expected = torch.tensor(np.frombuffer(raw, dtype="<f4").copy())
    resampled = resample(torch.tensor(wav), rate, 16000)[: len(expected)]
    assert (resampled - expected[: len(resampled)]).abs().max() < 1e-3


@pytest.mark.parametrize("samples", [1, 2, 100, 12345])
@pytest.mark.parametrize("rate", [8000, 11127, 44101, 767999])
def test_the_length_is_rounded_up_as_torchaudio_does(rate, samples):
    wav = torch.ones(samples)
    assert len(resample(wav, rate, 16000)) == math.ceil(samples * 16000 / rate)


def test_the_size_of_a_filter_is_known_before_it_is_made():
    for rate in ORDINARY:
        kernel = torchaudio.transforms.Resample(rate, 16000).kernel
        assert _filter_size(rate, 16000) == kernel.numel()
