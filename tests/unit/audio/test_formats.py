"""Every kind of file that FFmpeg reads: the same samples, or refused; nothing lost."""

import logging
import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile
import torch

from eat.audio import pyav
from eat.audio.io import decode_audio, inspect_audio, read_audio
from eat.audio.resampling import resample
from eat.errors import AudioError

RATE = 16000


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A stereo WAV file of 1.5 s at 44.1 kHz, and its samples."""
    time = np.arange(66150) / 44100
    left = 0.4 * np.sin(2 * np.pi * (200 + 900 * time) * time)
    right = 0.3 * np.sin(2 * np.pi * 700 * time)
    path = tmp_path_factory.mktemp("sweep") / "sweep.wav"
    soundfile.write(path, np.stack([left, right], axis=1), 44100)
    return path


def run(*command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(map(str, command), check=True, capture_output=True).stdout


def ffmpeg(*arguments):
    return run("ffmpeg", "-nostdin", "-y", "-loglevel", "error", *arguments)


def decoded(path, channels):
    """What FFmpeg's program decodes, `[n, C]`."""
    samples = ffmpeg("-i", path, "-map", "0:a:0", "-f", "f32le", "-")
    return np.frombuffer(samples, dtype="<f4").reshape(-1, channels)


def assert_reads_as(path, samples, rate, tolerance):
    """Check, reading, and decoding from memory agree with the samples."""
    info = inspect_audio(path)
    assert (info.sample_rate, info.num_frames) == (rate, len(samples))
    assert info.channels == samples.shape[1]
    expected = resample(torch.tensor(samples).mean(dim=1), rate, RATE)
    read = read_audio(path)
    assert len(read) == len(expected)
    assert (read - expected).abs().max() <= tolerance
    assert torch.equal(decode_audio(path.read_bytes(), "clip"), read)


FORMATS = [
    ("a.wav", "-c:a pcm_u8"),
    ("a.wav", "-c:a pcm_s24le"),  # WAVE_FORMAT_EXTENSIBLE
    ("a.wav", "-c:a pcm_f64le"),
    ("a.wav", "-c:a pcm_alaw"),
    ("a.wav", "-c:a pcm_mulaw -ac 6"),
    ("a.wav", "-c:a adpcm_ms"),
    ("a.wav", "-c:a adpcm_ima_wav"),
    ("a.wav", "-c:a adpcm_g722 -ar 16000 -ac 1"),
    ("a.wav", "-c:a gsm_ms -ar 8000 -ac 1"),
    ("a.wav", "-c:a libmp3lame"),
    ("a.wav", "-c:a flac"),
    ("a.wav", "-c:a pcm_f32le -ac 8"),
    ("a.wav", "-rf64 always"),
    ("a.w64", "-c:a pcm_s16le"),
    ("a.w64", "-c:a pcm_f32le"),  # libsndfile decodes the floats as integers
    ("a.w64", "-c:a pcm_f64le"),
    ("a.aiff", "-c:a pcm_s16be"),
    ("a.aifc", "-f aiff -c:a pcm_f32be"),
    ("a.au", "-c:a pcm_s16be"),
    ("a.caf", "-c:a pcm_f32le"),
    ("a.caf", "-c:a alac"),
    ("a.flac", ""),
    ("a.oga", "-c:a flac"),
    ("a.ogg", "-c:a libvorbis"),
    ("a.opus", "-c:a libopus"),
    ("a.mp3", ""),
    ("a.mp3", "-q:a 5"),
    ("a.mp3", "-q:a 5 -write_xing 0"),  # VBR: the length cannot be estimated
    ("a.mp3", "-write_xing 0"),
    ("a.mp2", ""),
    ("a.m4a", ""),
    ("a.webm", "-c:a libopus"),
    ("delayed.mka", "-c:a flac -output_ts_offset 5"),
    ("a.wv", ""),
    ("a.tta", ""),
    ("a.ac3", ""),
    ("a.avi", "-c:a pcm_s16le"),
    ("mp3.wav", "-f mp3"),
    ("wav.mp3", "-f wav"),
    ("m4a.flac", "-f mp4"),
]


@pytest.mark.parametrize(("name", "options"), FORMATS)
def test_a_format_is_read_as_ffmpeg_does(sweep, tmp_path, name, options):
    pytest.importorskip("av")
    path = tmp_path / name
    ffmpeg("-i", sweep, *options.split(), path)
    info = inspect_audio(path)
    # Decoders of IMA ADPCM round differently.
    tolerance = 5e-3 if "ima" in options else 1e-4
    assert_reads_as(path, decoded(path, info.channels), info.sample_rate, tolerance)


def test_big_endian_wav(sweep, tmp_path):
    run("sox", sweep, "-B", tmp_path / "a.wav")
    samples, rate = soundfile.read(sweep, dtype="float32")
    assert_reads_as(tmp_path / "a.wav", samples, rate, 1e-4)


def test_flac_of_unknown_length(sweep, tmp_path):
    pytest.importorskip("av")
    path = tmp_path / "a.flac"
    path.write_bytes(ffmpeg("-i", sweep, "-f", "flac", "-"))  # a pipe
    samples, rate = soundfile.read(sweep, dtype="float32")
    assert_reads_as(path, samples, rate, 0)


@pytest.mark.parametrize("codec", ["libvorbis", "libopus", "flac"])
def test_chained_ogg_is_read_to_the_end(sweep, tmp_path, codec):
    pytest.importorskip("av")
    paths = [tmp_path / "a.ogg", tmp_path / "b.ogg"]
    ffmpeg("-i", sweep, "-c:a", codec, paths[0])
    ffmpeg("-i", sweep, "-c:a", codec, "-ac", 1, "-ar", 24000, paths[1])
    chained = tmp_path / "ab.ogg"
    chained.write_bytes(paths[0].read_bytes() + paths[1].read_bytes())
    parts = [read_audio(path) for path in paths]
    assert torch.equal(read_audio(chained), torch.cat(parts))
    seconds = sum(inspect_audio(path).seconds for path in paths)
    assert inspect_audio(chained).seconds == pytest.approx(seconds, abs=1e-3)
    head = read_audio(chained, max_seconds=2.5)
    assert torch.equal(head, torch.cat(parts)[: len(head)]) and len(head) == 40000


@pytest.mark.parametrize("options", ["", "-write_xing 0", "-q:a 5 -write_xing 0"])
def test_joined_mp3_is_read_to_the_end(sweep, tmp_path, options):
    pytest.importorskip("av")
    ffmpeg("-i", sweep, *options.split(), tmp_path / "a.mp3")
    path = tmp_path / "joined.mp3"
    path.write_bytes((tmp_path / "a.mp3").read_bytes() * 3)
    samples = decoded(path, 2)
    info = inspect_audio(path)
    # Without Xing headers FFmpeg drops a frame where one file ends.
    assert len(samples) <= info.num_frames <= len(samples) + 2 * 1152
    assert abs(len(read_audio(path)) - info.seconds * RATE) <= 1
    if info.num_frames == len(samples):
        assert_reads_as(path, samples, 44100, 1e-4)


def test_tags_after_an_mp3_are_not_sound(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(pyav, "available", lambda: False)
    path = tmp_path / "a.mp3"
    ffmpeg("-i", sweep, "-id3v2_version", 3, path)
    samples = decoded(path, 2)
    tag = b"APETAGEX" + struct.pack("<III", 2000, 32 + 9000, 1) + bytes(12)
    path.write_bytes(path.read_bytes() + tag + b"x" * 9000 + tag + b"TAG" + bytes(125))
    assert_reads_as(path, samples, 44100, 1e-4)


@pytest.mark.parametrize("suffix", ["aiff", "wav"])
def test_files_that_sox_writes_to_a_pipe(sweep, tmp_path, suffix):
    pytest.importorskip("av")
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(run("sox", sweep, "-t", suffix, "-"))
    samples, rate = soundfile.read(sweep, dtype="float32")
    assert_reads_as(path, samples, rate, 1e-4)


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac", "mp3"])
def test_a_tag_in_front(sweep, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    ffmpeg("-i", sweep, path)
    samples = read_audio(path)
    path.write_bytes(b"ID3\4\0\0\0\0\x07\x68" + bytes(1000) + path.read_bytes())
    for read in (read_audio(path), decode_audio(path.read_bytes(), "clip")):
        torch.testing.assert_close(read, samples, atol=1e-4, rtol=0)


def test_sound_and_video(sweep, tmp_path):
    pytest.importorskip("av")
    video = ("-f", "lavfi", "-i", "testsrc=d=1:s=64x64")
    path = tmp_path / "a.mp4"
    ffmpeg(*video, "-i", sweep, "-c:v", "mpeg4", path)
    assert_reads_as(path, decoded(path, 2), 44100, 1e-4)


@pytest.mark.parametrize("end", ["a.mp3", "a.flac"])
def test_without_pyav_the_extra_is_named(sweep, tmp_path, monkeypatch, end):
    monkeypatch.setattr(pyav, "available", lambda: False)
    path = tmp_path / end
    if end == "a.mp3":
        ffmpeg("-i", sweep, tmp_path / "b.mp3")
        path.write_bytes((tmp_path / "b.mp3").read_bytes() * 2)
    else:
        path.write_bytes(ffmpeg("-i", sweep, "-f", "flac", "-"))
    for function in (inspect_audio, read_audio):
        with pytest.raises(AudioError, match=r"eat-toolkit\[av\]"):
            function(path)


CUT = "wav w64 aiff au caf flac ogg opus oga webm aac m4a wv tta avi".split()


@pytest.mark.parametrize("suffix", [*CUT, "rf64"])
def test_cut_files_are_refused(sweep, tmp_path, suffix):
    pytest.importorskip("av")
    path = tmp_path / f"a.{suffix}"
    options = {"oga": "-c:a flac", "rf64": "-rf64 always -f wav"}.get(suffix, "")
    ffmpeg("-i", sweep, *options.split(), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    for function in (inspect_audio, read_audio):
        with pytest.raises(AudioError):
            function(path)


def test_a_cut_mp3_is_read_with_a_warning(sweep, tmp_path, caplog):
    path = tmp_path / "a.mp3"
    ffmpeg("-i", sweep, path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert len(read_audio(path)) < 0.6 * 1.5 * RATE
    [record] = caplog.records
    assert str(path) in record.getMessage()
    [warning] = inspect_audio(path).warnings
    assert warning.startswith("truncated: ")


@pytest.mark.parametrize("codec", ["libvorbis", "libopus"])
@pytest.mark.parametrize("remove", [False, True])
def test_damaged_ogg_pages_are_not_skipped(sweep, tmp_path, codec, remove):
    path = tmp_path / "a.ogg"
    ffmpeg("-i", sweep, "-c:a", codec, "-page_duration", 200_000, path)
    data = path.read_bytes()
    starts = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    begin, end = starts[4:6]
    page = b"" if remove else data[begin : end - 9] + bytes(9)
    path.write_bytes(data[:begin] + page + data[end:])
    for function in (inspect_audio, read_audio):
        with pytest.raises(AudioError):
            function(path)


# -- sizes in the header of a WAV file ---------------------------------------------


def write_with_size(path, size):
    """Write a WAV file whose header has another size; return its samples."""
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)
    soundfile.write(path, wav, RATE)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    return torch.tensor(wav)


@pytest.mark.parametrize("excess", [1, 2, 7, 36, 44])
def test_a_size_with_the_header_is_read(tmp_path, excess, caplog):
    wav = write_with_size(tmp_path / "a.wav", 2 * RATE + excess)
    torch.testing.assert_close(read_audio(tmp_path / "a.wav"), wav, atol=1e-4, rtol=0)
    assert inspect_audio(tmp_path / "a.wav").num_frames == RATE
    assert not caplog.records


@pytest.mark.parametrize("size", [0, 2**32 - 1, 2**32 - 37, 2**31, 0x7FFFF000])
def test_an_unknown_size_is_read_to_the_end_with_a_warning(tmp_path, size, caplog):
    pytest.importorskip("av")
    path = tmp_path / "a.wav"
    wav = write_with_size(path, size)
    for _ in range(2):
        torch.testing.assert_close(read_audio(path), wav, atol=1e-4, rtol=0)
    [record] = caplog.records
    assert record.levelno == logging.WARNING and str(path) in record.getMessage()
    info = inspect_audio(path)
    assert info.num_frames == RATE and info.warnings


@pytest.mark.parametrize("size", [4 * RATE, 20 * RATE])
def test_a_larger_size_is_truncated(tmp_path, size):
    write_with_size(tmp_path / "a.wav", size)
    with pytest.raises(AudioError, match=str(size)):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("total", [0, 2**36 - 1, 100])
def test_flac_with_a_wrong_length(sweep, tmp_path, total):
    pytest.importorskip("av")
    samples, rate = soundfile.read(sweep, dtype="float32")
    path = tmp_path / "a.flac"
    soundfile.write(path, samples, rate)
    content = bytearray(path.read_bytes())
    field = int.from_bytes(content[18:26], "big") >> 36 << 36 | total
    content[18:26] = field.to_bytes(8, "big")
    path.write_bytes(content)
    assert_reads_as(path, samples, rate, 0)
