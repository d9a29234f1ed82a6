"""Damaged audio files: an `AudioError` or sound, in bounded time and memory.

By hand, with other examples and more of them:
``EAT_FUZZ_SEEDS=1000:50000 pytest tests/unit/audio/test_fuzz.py``
"""

import io
import os
import resource
import time
from functools import cache, partial

import numpy as np
import pytest
import soundfile

from eat.audio import libsndfile
from eat.audio.decoding import NotDecodableError
from eat.audio.io import decode_audio, inspect_audio, read_audio
from eat.errors import AudioError

SEEDS = range(*map(int, os.environ.get("EAT_FUZZ_SEEDS", "0:100").split(":")))
LIMIT = 200 * 2**20
KINDS = {
    "wav": ("WAV", "PCM_16"),
    "float": ("WAV", "FLOAT"),
    "adpcm": ("WAV", "MS_ADPCM"),
    "wavex": ("WAVEX", "PCM_24"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "ULAW"),
    "caf": ("CAF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
EXTREMES = (
    b"\0" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\1",
)


@cache
def sound(kind):
    """A third of a second in one format."""
    wav = np.random.default_rng(0).normal(0, 0.1, (5300, 2)).astype(np.float32)
    buffer = io.BytesIO()
    format_, subtype = KINDS[kind]
    soundfile.write(buffer, wav, 16000, subtype, format=format_)
    return buffer.getvalue()


def damage(data, rng):
    """Change a few bytes, most often in the header; or cut, repeat or insert a part."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        reach = rng.choice([48, 200, len(data)])
        start = int(rng.integers(min(reach, len(data)) or 1))
        match rng.integers(8):
            case 0:
                data[start : start + 1] = bytes([rng.integers(256)])
            case 1 if start < len(data):
                data[start] ^= 1 << rng.integers(8)
            case 2 | 3:
                extreme = EXTREMES[rng.integers(len(EXTREMES))]
                data[start : start + 4] = extreme[:: rng.choice([1, -1])]
            case 4:
                del data[start : start + int(rng.integers(1, 40))]
            case 5:
                data[start:start] = rng.bytes(int(rng.integers(1, 40)))
            case 6:
                del data[int(rng.integers(1, len(data) + 2)) :]
            case 7:
                data += data[start:]
    return bytes(data)


@pytest.fixture
def limited_memory():
    """Let this process allocate no more than the limit."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def require_bounded(read):
    """Call a function that reads a file: sound or an error, in bounded time."""
    begin = time.perf_counter()
    seconds = 0.0
    try:
        wav = read()
        seconds = len(wav) / 16000
        assert wav.isfinite().all()
    except AudioError as error:
        assert "\n" not in str(error)
    assert time.perf_counter() - begin < 2 + seconds


def damaged(kind):
    for seed in SEEDS:
        yield damage(sound(kind), np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes(limited_memory, kind):
    for data in damaged(kind):
        require_bounded(partial(decode_audio, data, "clip"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_damaged_files(limited_memory, tmp_path, kind):
    path = tmp_path / "clip"

    def inspect_and_read():
        try:
            info = inspect_audio(path)
        except AudioError:
            with pytest.raises(AudioError):
                read_audio(path)
            raise
        assert 1000 <= info.sample_rate <= 768_000
        assert 0 < info.seconds < 3600
        return read_audio(path)

    for data in damaged(kind):
        path.write_bytes(data or b"x")
        require_bounded(inspect_and_read)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_damaged_bytes_without_libsndfile(limited_memory, monkeypatch, kind):
    pytest.importorskip("av")

    def refuse(source, seconds):
        raise NotDecodableError("another decoder")

    monkeypatch.setattr(libsndfile, "decode", refuse)
    for data in damaged(kind):
        require_bounded(partial(decode_audio, data, "clip"))
