import logging
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from eat.audio.checks import kind_of, signal_warnings
from eat.audio.io import decode_audio, inspect_audio, read_audio, read_with_warnings
from eat.errors import AudioError

RATE = 16000


def noise(samples=RATE):
    return np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)


def flipped_exponent():
    wav = noise()
    bits = wav[500:501].view(np.uint32)
    bits ^= 1 << 30
    return wav


def kinds(warnings):
    return [kind_of(warning) for warning in warnings]


@pytest.mark.parametrize("wav", [flipped_exponent(), noise() * 1e30, noise() * 1e11])
def test_absurd_samples_are_refused_with_their_peak(tmp_path, wav):
    path = tmp_path / "a.wav"
    soundfile.write(path, wav, RATE, "FLOAT")
    assert np.isfinite(wav).all()
    peak = f"{np.abs(wav).max():.3g}".replace("+", r"\+")
    with pytest.raises(AudioError, match=peak):
        read_audio(path)
    with pytest.raises(AudioError, match=peak):
        decode_audio(path.read_bytes(), "clip")
    with pytest.raises(AudioError, match=peak):
        signal_warnings(torch.tensor(wav))


def test_floats_scaled_as_integers_are_read_with_a_warning(tmp_path, caplog):
    path = tmp_path / "a.wav"
    wav = noise() * 32767 / np.abs(noise()).max()
    soundfile.write(path, wav, RATE, "FLOAT")
    assert torch.equal(read_audio(path), torch.tensor(wav))
    [record] = caplog.records
    assert record.levelno == logging.WARNING and "32,767" in record.getMessage()
    assert kinds(inspect_audio(path).warnings) == ["too loud"]


MEMBERS = {
    "good": (noise(), []),
    "loud sine": (np.sin(np.arange(RATE)), []),
    "overshoot": (noise() * 3, []),
    "silent": (np.zeros(RATE), ["silent"]),
    "silence, then sound": (np.append(np.zeros(3 * RATE), noise()), []),
    "opposite channels": (np.stack([noise(), -noise()], axis=1), ["silent"]),
    "clipped": (np.clip(noise() * 3, -1, 1), ["clipped"]),
    "short": (noise(399), ["too short"]),
    "one sample": (noise(1), ["too short"]),
    "one frame": (noise(400), []),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_suspicious_clips_are_warned_of(tmp_path, name):
    wav, expected = MEMBERS[name]
    soundfile.write(tmp_path / "a.wav", wav, RATE, "FLOAT")
    assert kinds(inspect_audio(tmp_path / "a.wav").warnings) == expected
    read, warnings = read_with_warnings(tmp_path / "a.wav")
    assert kinds(warnings) == expected
    assert kinds(signal_warnings(read)) == expected


@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_short_clip_is_judged_at_its_own_rate(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(rate // 40), rate)
    assert kinds(read_with_warnings(path)[1]) == ["too short"] * (rate % 40 > 0)
    soundfile.write(path, noise(rate // 40 + 1), rate)
    assert read_with_warnings(path)[1] == ()


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1])
def test_impossible_rates_are_refused(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(), rate)
    for function in (inspect_audio, read_audio):
        with pytest.raises(AudioError, match=str(rate)):
            function(path)


def test_what_is_not_a_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "file.wav").touch()
    names = ["pipe.wav", "loop.wav", "file.wav/b.wav", "null\0byte.wav"]
    for path in (*(tmp_path / name for name in names), Path("/dev/zero")):
        for function in (inspect_audio, read_audio):
            with pytest.raises(AudioError, match=str(path.parent)):
                function(path)


@pytest.mark.parametrize("data", [b"", b"x", b"RIFF", b"OggS", b"ID3", b"fLaC" * 9])
def test_bytes_that_are_no_audio(data):
    with pytest.raises(AudioError, match="shard.tar"):
        decode_audio(data, "shard.tar")


def test_sixty_four_channels(tmp_path):
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 64)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wav, RATE, "FLOAT")
    expected = torch.tensor(wav.mean(axis=1))
    torch.testing.assert_close(read_audio(tmp_path / "a.wav"), expected)
