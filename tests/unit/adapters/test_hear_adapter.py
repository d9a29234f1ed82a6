"""HEAR: the official validator, and times that name the centers of the frames."""

import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from eat.adapters import hear
from eat.errors import CheckpointError


@pytest.fixture
def official(parity_folder):
    return str(parity_folder / "official_pretrain.pt")


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_official_validator(official, monkeypatch):
    # It asks TensorFlow only whether the model is one of TensorFlow's.
    stub = SimpleNamespace(Module=type("Module", (), {}))
    monkeypatch.setitem(sys.modules, "tensorflow", stub)
    validate = pytest.importorskip(
        "hearvalidator.validate", reason="pip install --no-deps hearvalidator"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it warns of a hop over 50 ms
        validate.ValidateModel("eat.adapters.hear", official, device="cpu")()


@pytest.mark.parametrize("hop_ms", [10, 40, 160])
@pytest.mark.parametrize("seconds", [0.31, 1.07, 1.98, 4.0])
def test_times_cover_the_clip(official, seconds, hop_ms):
    """The rules of the validator's newest version, which is not on PyPI."""
    model = hear.load_model(official, hop_ms=hop_ms)
    samples = round(seconds * 16000)
    frames, times = hear.get_timestamp_embeddings(noise(2, samples), model)
    assert frames.shape == (*times.shape, model.timestamp_embedding_size)
    assert torch.equal(times[0], times[1])
    times = times[0]
    assert times[0] <= hop_ms
    assert 1000 * seconds - hop_ms <= times[-1] <= 1000 * seconds
    assert (times.diff() == hop_ms).all()


@pytest.mark.parametrize("hop_ms", [20, 40, 160])
def test_a_click_is_where_its_time_says(official, hop_ms):
    """The frames that change most surround it; an FFT window reaches 15 ms further."""
    model = hear.load_model(official, hop_ms=hop_ms, layers=0)
    for click_ms in (100, 433, 900):
        wav = 0.001 * noise(1, 16000)
        before, times = hear.get_timestamp_embeddings(wav, model)
        wav[:, 16 * click_ms] = 1.0
        after, _ = hear.get_timestamp_embeddings(wav, model)
        change = (after - before).norm(dim=2)[0]
        changed = times[0, change > change.max() / 2]
        center = (changed[0] + changed[-1]) / 2
        assert abs(center - click_ms) <= hop_ms / 2 + 15


def test_scenes_are_clips_of_the_model(official):
    wav = noise(3, 12000)
    for options, width in [({}, 48), ({"pooling": "both", "layers": 1}, 96)]:
        model = hear.load_model(official, **options)
        assert model.scene_embedding_size == width
        expected = model.model.encode_batch(wav, **options)
        assert torch.equal(hear.get_scene_embeddings(wav, model), expected)


def test_no_checkpoint():
    with pytest.raises(CheckpointError, match="--model"):
        hear.load_model()
