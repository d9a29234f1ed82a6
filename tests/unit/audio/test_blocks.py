"""Blocks, joined, are what reading the whole file returns."""

import logging
import shutil
import subprocess
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

from eat.audio import checks, libsndfile, pyav
from eat.audio.blocks import read_blocks
from eat.audio.io import read_audio
from eat.audio.resampling import BlockResampler, resample
from eat.errors import AudioError

RATE = 16000
FORMATS = ["WAV", "FLAC", "OGG", "MP3", "AIFF"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Make decoders return many blocks of a short file."""
    monkeypatch.setattr(libsndfile, "_BLOCK", 5000)
    monkeypatch.setattr(pyav, "_BLOCK", 5000)


@pytest.fixture(scope="module")
def ffmpeg():
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    pytest.importorskip("av")

    def run(*arguments):
        command = ["ffmpeg", "-nostdin", "-y", "-loglevel", "error", *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    return run


def noise(samples, channels=1):
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, (samples, channels))
    return wav.astype(np.float32)


def assert_blocks_are_the_file(path, tolerance, sample_rate=RATE, seconds=0.1):
    whole = read_audio(path, sample_rate)
    blocks = list(read_blocks(path, sample_rate, seconds))
    size = round(seconds * sample_rate)
    assert {len(block) for block in blocks[:-1]} <= {size}
    assert 0 < len(blocks[-1]) <= size
    joined = torch.cat(blocks)
    assert joined.dtype == torch.float32 and joined.shape == whole.shape
    assert (joined - whole).abs().max() <= tolerance


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rate", [8000, RATE, 22050, 44100, 48000])
def test_formats_and_rates(tmp_path, kind, rate):
    path = tmp_path / "clip"
    soundfile.write(path, noise(rate // 2, channels=2), rate, format=kind)
    assert_blocks_are_the_file(path, 0 if rate == RATE else 1e-6)


@pytest.mark.parametrize("seconds", [1 / RATE, 0.0131, 0.25, 1.0, 60.0])
@pytest.mark.parametrize("samples", [1, 399, 4000, 8001])
def test_block_sizes(tmp_path, seconds, samples):
    soundfile.write(tmp_path / "a.wav", noise(samples), RATE)
    assert_blocks_are_the_file(tmp_path / "a.wav", 0, seconds=seconds)


@pytest.mark.parametrize("options", ["", "-c:a libopus", "-f mp4"])
def test_files_that_ffmpeg_makes(ffmpeg, tmp_path, options):
    soundfile.write(tmp_path / "a.wav", noise(30000, channels=2), 44100)
    path = tmp_path / "a.mka"
    ffmpeg("-i", tmp_path / "a.wav", *options.split(), path)
    assert_blocks_are_the_file(path, 1e-6)


@pytest.mark.slow
def test_parts_joined_files_and_unknown_lengths(ffmpeg, tmp_path):
    """Those in which libsndfile alone would not reach the end."""
    wav = tmp_path / "a.wav"
    soundfile.write(wav, noise(30000), 44100)
    for kind, options in [("ogg", ""), ("mp3", "-write_xing 0"), ("mp3", "-q:a 5")]:
        ffmpeg("-i", wav, *options.split(), "-f", kind, tmp_path / "part")
        ffmpeg("-i", wav, "-ar", "24000", "-f", kind, tmp_path / "other")
        other = "other" if kind == "ogg" else "part"
        joined = [(tmp_path / name).read_bytes() for name in ("part", other)]
        (tmp_path / "joined").write_bytes(b"".join(joined))
        assert len(read_audio(tmp_path / "joined")) > 1.9 * 30000 * RATE / 44100
        assert_blocks_are_the_file(tmp_path / "joined", 1e-6)
    (tmp_path / "a.flac").write_bytes(ffmpeg("-i", wav, "-f", "flac", "-"))
    assert_blocks_are_the_file(tmp_path / "a.flac", 1e-6)


def test_wav_without_a_size_is_read_with_a_warning(ffmpeg, tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", noise(RATE), RATE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = bytes(4)
    (tmp_path / "a.wav").write_bytes(content)
    assert sum(map(len, read_blocks(tmp_path / "a.wav"))) == RATE
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert str(tmp_path / "a.wav") in record.getMessage()
    assert_blocks_are_the_file(tmp_path / "a.wav", 0)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "absent.wav", "text"])
def test_errors_are_those_of_reading(tmp_path, name):
    (tmp_path / "text").write_text("This is not audio.\n" * 9)
    if name.startswith("a."):
        soundfile.write(tmp_path / name, noise(3 * RATE), RATE)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError) as error:
        read_audio(tmp_path / name)
    with pytest.raises(type(error.value)) as other:
        list(read_blocks(tmp_path / name))
    assert str(other.value) == str(error.value)


def test_what_is_wrong_in_the_middle_is_met_there(tmp_path):
    wav = noise(RATE)
    wav[12000] = np.nan
    soundfile.write(tmp_path / "a.wav", wav, RATE, subtype="FLOAT")
    blocks = read_blocks(tmp_path / "a.wav", block_seconds=0.1)
    assert torch.equal(next(blocks), torch.from_numpy(wav[:1600, 0]))
    with pytest.raises(AudioError):
        list(blocks)
    with pytest.raises(ValueError, match="block_seconds"):
        next(read_blocks(tmp_path / "a.wav", block_seconds=0))


@pytest.mark.parametrize("kind", ["WAV", pytest.param("OGG", marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    """Of what Python allocates; torch's tensors here are views of numpy's arrays."""
    peaks = []
    for seconds in (10, 40):
        soundfile.write(tmp_path / "a", noise(seconds * RATE), RATE, format=kind)
        tracemalloc.start()
        for _ in read_blocks(tmp_path / "a", block_seconds=1.0):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 2**20


@pytest.mark.parametrize("rate", [8000, 44100, 11127, 44101, 191999])
@pytest.mark.parametrize("block", [777, 30000])
def test_resampling_has_no_seams(rate, block):
    """With torchaudio's filters, and with libsoxr at odd rates."""
    wav = torch.from_numpy(noise(rate * 5 // 2)[:, 0])
    resampler = BlockResampler(rate, RATE)
    parts = [resampler(part) for part in wav.split(block)] + [resampler.finish()]
    expected = resample(wav, rate, RATE)
    joined = torch.cat(parts)
    assert joined.shape == expected.shape
    assert (joined - expected).abs().max() <= 1e-6


def test_lengths_that_torchaudio_rounds_down():
    """It counts samples in float32: here 96279.002 is 96279 to it."""
    wav = torch.from_numpy(noise(265369)[:, 0])
    resampler = BlockResampler(44100, RATE)
    joined = torch.cat([resampler(wav), resampler.finish()])
    assert len(joined) == len(resample(wav, 44100, RATE)) < 265369 * 160 / 441


def test_regroup():
    parts = [torch.arange(n) for n in (3, 0, 5, 1, 1)]
    groups = list(checks.regroup(parts, 4))
    assert [len(group) for group in groups] == [4, 4, 2]
    assert torch.equal(torch.cat(groups), torch.cat(parts))
    assert list(checks.regroup([torch.empty(0)], 4)) == []
