"""Many files are read lazily, in order, and skipped where they cannot be read."""

import logging
import os
import sys
from itertools import count, islice

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import eat
from eat.errors import AudioError


@pytest.fixture(scope="module")
def model(parity_folder):
    return eat.from_pretrained(parity_folder / "official_pretrain.pt", device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Seven files, of which the fourth is no audio and the sixth is long."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{number}.wav" for number in range(7)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 9000 - 1000 * number)
        soundfile.write(path, np.tile(noise, 9) if number == 5 else noise, 16000)
    paths[3].write_text("not audio")
    return paths


@pytest.mark.parametrize("num_workers", [0, 3])
@pytest.mark.parametrize("pad_to", ["model", "clip"])
def test_unreadable_files_are_skipped_or_raised(
    model, files, num_workers, pad_to, caplog
):
    options = {"batch_size": 2, "num_workers": num_workers, "pad_to": pad_to}
    with caplog.at_level(logging.WARNING):
        found = [*model.encode_files(files, on_error="skip", **options)]
    assert [features.path for features in found] == files[:3] + files[4:]
    assert sum("3.wav" in record.getMessage() for record in caplog.records) == 1
    for features in found:
        alone = model.encode_file(features.path, pad_to=pad_to).values
        torch.testing.assert_close(features.values, alone, atol=1e-5, rtol=0)
    iterator = model.encode_files(files, **options)
    assert [features.path for features in islice(iterator, 3)] == files[:3]
    with pytest.raises(AudioError, match=r"3\.wav"):
        next(iterator)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_files_are_read_as_they_are_needed(model, files, num_workers):
    taken = []
    endless = (taken.append(number) or str(files[number % 3]) for number in count())
    features = model.encode_files(endless, 2, num_workers)
    assert not taken
    assert len([*islice(features, 6)]) == 6 and len(taken) <= 10
    features.close()


def test_paths_in_every_form(model, files):
    paths = [files[0], str(files[0]), os.fsencode(files[0])]
    found = [model.encode_file(path) for path in paths]
    found += model.encode_files(iter(paths * 2), batch_size=4)
    assert {features.path for features in found} == {files[0]}
    for features in found:
        torch.testing.assert_close(features.values, found[0].values)
    for path in (None, float("nan")):  # an empty cell of a table
        with pytest.raises(ValueError, match=f"^path {path}"):
            model.encode_file(path)
        with pytest.raises(ValueError, match=f"^path {path}"):
            [*model.encode_files([path], on_error="skip")]


def test_no_files(model):
    for paths in ("dog.wav", b"dog.wav", None):
        with pytest.raises(ValueError, match="^paths "):
            model.encode_files(paths)
    assert [*model.encode_files([])] == []
    wrong = {"batch_size": (0, "3", 2.0), "num_workers": (-1, 1.5)}
    wrong |= {"on_error": ("ignore",)}
    for option, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError, match=f"^{option} "):
                model.encode_files([], **{option: value})
    with pytest.raises(TypeError, match="granulrity"):
        model.encode_files([], granulrity="frames")


def test_a_table_of_features(model, files):
    one = model.encode_file(files[0]).to_dataframe()
    assert [*one.columns] == ["layer", "start", "end", *(f"f{i}" for i in range(48))]
    assert one[["layer", "start", "end"]].to_numpy().tolist() == [[2, 0, 9000 / 16000]]
    features = model.encode_file(files[0], "frames", layers=[2, 0])
    table = features.to_dataframe()
    assert table.layer.tolist() == [2] * 4 + [0] * 4
    assert table.start.tolist() == [0, 0.16, 0.32, 0.48] * 2
    assert table.end.tolist()[3] == 9000 / 16000
    values = table.filter(regex="^f").to_numpy()
    assert np.array_equal(values, features.numpy().reshape(8, 48))
    assert isinstance(table, pd.DataFrame) and values.dtype == np.float32


LONG = """
import sys
import eat
from pathlib import Path
from eat.inference.features import AudioEncoder
encoder = eat.model.encoder.EATEncoder(dim=192, depth=1, num_heads=1, max_frames=1024)
model = AudioEncoder(eat.audio.frontend.LogMel(-4.268, 4.569, 1024), encoder)
peaks = []
for path in sys.argv[1:]:
    features = model.encode_file(path)
    status = Path("/proc/self/status").read_text()
    peaks.append(int(status.split("VmHWM:")[1].split()[0]) / 1024)
print(features.times[-1, 1].item(), *peaks)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_a_long_file_needs_as_little_memory_as_a_short_one(run_code, tmp_path):
    minute = np.sin(np.arange(60 * 16000) * 0.3) * np.linspace(-0.1, 0.1, 60 * 16000)
    paths = [tmp_path / "short.flac", tmp_path / "long.flac"]
    for path, minutes in zip(paths, (3, 20), strict=True):
        with soundfile.SoundFile(path, "w", 16000, 1) as file:
            for _ in range(minutes):
                file.write(minute)
    seconds, before, after = map(float, run_code(LONG, *paths)[0].split())
    assert seconds == 1200
    assert after - before < 55  # MB; the waveform alone would be 73
