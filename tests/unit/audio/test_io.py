import numpy as np
import pytest
import soundfile
import torch
import torchaudio.functional

from eat.audio.io import AudioInfo, inspect_audio, inspect_many, read_audio
from eat.errors import AudioError, AudioNotFoundError

RATE = 16000


def noise(samples, channels=1, seed=0):
    wav = np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, channels))
    return wav.astype(np.float32)


def cut_in_half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def assert_one_line(error, path):
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(")")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("subtype", "step"),
    [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("FLOAT", 0)],
)
def test_wav_of_any_bit_depth_is_read_to_its_precision(tmp_path, subtype, step):
    wav = noise(RATE)
    soundfile.write(tmp_path / "a.wav", wav, RATE, subtype=subtype)
    read = read_audio(tmp_path / "a.wav")
    assert read.dtype == torch.float32
    assert read.shape == (RATE,)
    assert (read - torch.from_numpy(wav[:, 0])).abs().max() <= step


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("wav", "PCM_16"), ("flac", "PCM_16"), ("aiff", "PCM_16"), ("sds", "PCM_16")]
    + [("wav", "PCM_U8"), ("flac", "PCM_24"), ("wav", "FLOAT"), ("ogg", "VORBIS")],
)
def test_samples_are_bitwise_the_mean_of_floats(tmp_path, kind, subtype, channels):
    """However they are read; -0 and full scale included."""
    if kind == "sds" and channels > 1:
        pytest.skip("SDS has one channel")
    path, wav = tmp_path / f"a.{kind}", noise(RATE, channels)
    wav[:99], wav[99:199] = -0.0, -1
    soundfile.write(path, wav, RATE, subtype)
    floats = soundfile.read(path, dtype="float32", always_2d=True)[0]
    expected = torch.from_numpy(floats).mean(dim=1).view(torch.int32)
    assert torch.equal(read_audio(path).view(torch.int32), expected)


@pytest.mark.parametrize("kind", ["flac", "ogg", "mp3"])
def test_compressed_files_are_read(tmp_path, kind):
    time = np.arange(RATE) / RATE
    wav = 0.5 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / f"a.{kind}", wav, RATE)
    read = read_audio(tmp_path / f"a.{kind}").numpy()
    assert len(read) == RATE
    assert np.corrcoef(read, wav)[0, 1] > 0.99


def test_inspect_returns_the_header(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(22050, channels=2), 44100)
    info = inspect_audio(tmp_path / "a.wav")
    assert info == AudioInfo(sample_rate=44100, num_frames=22050, channels=2)
    assert info.seconds == 0.5


def test_stereo_at_44100_equals_resampling_before_averaging(tmp_path):
    wav = noise(44100, channels=2)
    soundfile.write(tmp_path / "a.wav", wav, 44100, subtype="FLOAT")
    channels = torch.from_numpy(wav.T.copy())
    official = torchaudio.functional.resample(channels, 44100, RATE).mean(dim=0)
    torch.testing.assert_close(read_audio(tmp_path / "a.wav"), official)


def test_mono_is_bitwise_what_torchaudio_resamples(tmp_path):
    wav = noise(32000)
    soundfile.write(tmp_path / "a.wav", wav, 32000, subtype="FLOAT")
    expected = torchaudio.functional.resample(torch.from_numpy(wav[:, 0]), 32000, RATE)
    assert torch.equal(read_audio(tmp_path / "a.wav"), expected)


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_max_seconds_keeps_the_beginning(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", noise(5 * rate), rate)
    whole = read_audio(tmp_path / "a.wav")
    head = read_audio(tmp_path / "a.wav", max_seconds=1.5)
    assert head.shape == (RATE * 3 // 2,)
    torch.testing.assert_close(head, whole[: len(head)])
    assert torch.equal(read_audio(tmp_path / "a.wav", max_seconds=60), whole)


def test_unusable_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("This is not audio.\n" * 9)
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "silent.wav", noise(0), RATE)
    for name in ("absent.wav", "empty.wav", "text.wav", "folder.wav", "silent.wav"):
        for function in (inspect_audio, read_audio):
            with pytest.raises(AudioError) as error:
                function(tmp_path / name)
            assert_one_line(error, tmp_path / name)
            assert isinstance(error.value, AudioNotFoundError) == (name == "absent.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.ogg", "a.flac"])
def test_truncated_files_are_found_without_decoding_them(tmp_path, name):
    soundfile.write(tmp_path / name, noise(10 * RATE), RATE)
    cut_in_half(tmp_path / name)
    for function in (inspect_audio, read_audio):
        with pytest.raises(AudioError) as error:
            function(tmp_path / name)
        assert_one_line(error, tmp_path / name)


def test_flac_without_its_last_bytes_is_truncated(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(10 * RATE), RATE)
    assert inspect_audio(path).seconds == 10
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(AudioError, match="160000"):
        inspect_audio(path)


def test_wav_written_to_a_pipe_is_not_called_truncated(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(RATE), RATE)
    content = bytearray(path.read_bytes())
    size = content.index(b"data") + 4
    content[4:8] = content[size : size + 4] = b"\xff" * 4
    path.write_bytes(content)
    assert inspect_audio(path).num_frames == RATE


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinite_samples_are_refused(tmp_path, value):
    wav = noise(RATE)
    wav[77] = value
    soundfile.write(tmp_path / "a.wav", wav, RATE, subtype="FLOAT")
    with pytest.raises(AudioError) as error:
        read_audio(tmp_path / "a.wav")
    assert_one_line(error, tmp_path / "a.wav")


def test_inspect_many_keeps_the_order_and_returns_errors(tmp_path):
    paths = []
    for number in range(150):
        paths.append(str(tmp_path / f"{number}.wav"))
        if number != 100:
            soundfile.write(paths[-1], noise(number + 1), RATE)
    results = list(inspect_many(paths))
    assert isinstance(results.pop(100), AudioError)
    frames = [info.num_frames for info in results]
    assert frames == [n + 1 for n in range(150) if n != 100]
