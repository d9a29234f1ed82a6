"""Features for probes equal those of `encode_file` and of the encoder itself."""

import socket

import numpy as np
import pytest
import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence

from eat.audio.frontend import LogMel
from eat.data.manifest import ManifestRow, write_manifest
from eat.errors import AudioError, ExperimentError
from eat.inference import probe_features
from eat.inference.audio_encoder import AudioEncoder
from eat.inference.probe_cache import cached_features
from eat.inference.probe_features import (
    TokenArray,
    features_of,
    statistics_of,
    untrained,
)
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder


@pytest.fixture
def model():
    torch.manual_seed(0)
    encoder = EATEncoder(dim=16, depth=3, num_heads=2, max_frames=64)
    return AudioEncoder(LogMel(-4.0, 4.0, num_frames=64), encoder)


@pytest.fixture
def manifest(tmp_path):
    """Five clips, shorter than the model, as long and longer."""
    rows = []
    for number, seconds in enumerate((0.3, 0.655, 0.655, 0.4, 1.5)):
        wav = np.random.default_rng(number).normal(size=int(16000 * seconds)) * 0.1
        soundfile.write(tmp_path / f"{number}.wav", wav, 16000)
        labels = ("a", "b")[number % 2 :]
        rows.append(ManifestRow(str(number), seconds, f"{number}.wav", labels))
    write_manifest(tmp_path / "clips.csv", rows)
    return tmp_path / "clips.csv"


def test_features_equal_those_of_the_files(model, manifest, tmp_path):
    found = features_of(model, manifest, tmp_path)
    assert found.pooled["cls"].shape == (5, 3, 16) and not found.tokens
    for row in range(4):  # the last one is cut, not encoded in windows
        path = tmp_path / f"{row}.wav"
        want = model.encode_file(path, layers="all", pooling="both").values
        got = [found.vectors(layer, "both")[row] for layer in range(3)]
        torch.testing.assert_close(torch.stack(got), want)
    with pytest.raises(ValueError, match=r"mean\+std"):
        found.vectors(0, "mean+std")
    found.pooled["mean"][3, 1, 0] = torch.nan
    found.vectors(1, "cls")
    with pytest.raises(ExperimentError, match="layer 1"):
        found.vectors(1, "mean")


def test_tokens_are_the_encoders_and_come_from_the_cache(model, manifest, tmp_path):
    cache = tmp_path / "cache"
    first = features_of(model, manifest, tmp_path, [1], cache)
    wavs = [soundfile.read(tmp_path / f"{n}.wav", dtype="float32")[0] for n in range(4)]
    lengths = torch.tensor([len(wav) for wav in wavs])
    wav = pad_sequence([*map(torch.from_numpy, wavs)], batch_first=True)
    spec = model.frontend(wav, lengths)
    want = model.encoder(spec, return_layers=True).layers[1]
    rows = np.arange(5)
    tokens = torch.from_numpy(first.tokens[1][rows])
    first_cls = first.vectors(1, "cls")
    assert tokens.dtype == torch.float16
    torch.testing.assert_close(tokens[:4].float(), want, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(first_cls[:4], want[:, 0])
    means = statistics_of(model, manifest, tmp_path, lambda x, n: x.mean(1))
    torch.testing.assert_close(means.vectors(0, "mean+std")[:4], spec.mean(1))
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    again = features_of(model, manifest, tmp_path, [1], cache)
    torch.testing.assert_close(again.vectors(1, "cls"), first_cls, rtol=0, atol=0)
    np.testing.assert_array_equal(again.tokens[1][rows], tokens)
    joined = TokenArray([first.tokens[1], again.tokens[1]])
    both = np.concatenate([tokens, tokens])
    assert joined.shape == both.shape
    mixed = np.array([7, 0, 4, 5, 9, 4])
    np.testing.assert_array_equal(joined[mixed], both[mixed])
    with pytest.raises(AudioError):  # of another layer there are none
        features_of(model, manifest, tmp_path, [0], cache)
    assert {path.name for path in cache.iterdir()} == {"pooled.npy", "layer1.npy"}


def test_tokens_of_a_model_that_masks_padding_are_refused(model, manifest, tmp_path):
    masking = EATClassifier(model.encoder, 2, mask_padding=True)
    model = AudioEncoder(model.frontend, masking)
    with pytest.raises(ExperimentError, match="padding"):
        features_of(model, manifest, tmp_path, [0])


def test_untrained_weights_depend_on_the_seed(model):
    state = torch.get_rng_state()
    weights = [
        untrained(model, seed).encoder.blocks[0].state_dict() for seed in (1, 1, 2)
    ]
    first, same, other = (next(iter(state.values())) for state in weights)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_untrained_features_ignore_padding_as_the_model_does(model, manifest, tmp_path):
    masking = EATClassifier(model.encoder, 2, mask_padding=True)
    masked = AudioEncoder(model.frontend, masking)
    plain, same = untrained(model, 1), untrained(masked, 1)
    assert same.mask_padding and not plain.mask_padding
    weights = plain.encoder.state_dict(), same.encoder.state_dict()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])
    found = [
        features_of(m, manifest, tmp_path).vectors(2, "mean") for m in (same, plain)
    ]
    wav = torch.from_numpy(soundfile.read(tmp_path / "0.wav", dtype="float32")[0])[None]
    frames = model.frontend.valid_frames(lengths := torch.tensor([wav.shape[1]]))
    spec = model.frontend(wav, lengths)
    want = plain.encoder(spec, return_layers=True, valid_frames=frames)
    means = want.layers[2][:, 1:][want.valid].mean(dim=0)
    torch.testing.assert_close(found[0][0], means, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0][0], found[1][0], rtol=1e-3)


def test_an_interrupted_run_leaves_no_features(model, manifest, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    stop = KeyboardInterrupt
    monkeypatch.setattr(probe_features, "pool_layers", lambda encoded: throw(stop))
    with pytest.raises(stop):
        cached_features(model, {"w": 1}, manifest, tmp_path, cache, [0])
    assert not [*cache.rglob("*.npy")] and not [*cache.rglob("*.tmp")]
    # Of a killed process, of another model.
    name = f".layer0.npy.{socket.gethostname()}-4194305.tmp"
    left = cache / "other" / name
    left.parent.mkdir()
    left.touch()
    monkeypatch.undo()
    cached_features(model, {"w": 1}, manifest, tmp_path, cache, [0])
    assert not left.exists() and len([*cache.rglob("*.npy")]) == 2


def throw(error):
    raise error


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other shape"])
def test_a_corrupt_file_of_the_cache_is_named(model, manifest, tmp_path, damage):
    cache = tmp_path / "cache"
    features_of(model, manifest, tmp_path, [1], cache)
    path = cache / "layer1.npy"
    content = {"cut": path.read_bytes()[:-50], "empty": b"", "text": b"layer " * 99}
    if damage == "other shape":
        np.save(path, np.zeros((4, 33, 16), np.float16))
    else:
        path.write_bytes(content[damage])
    with pytest.raises(ExperimentError, match=r"layer1\.npy.*delete"):
        features_of(model, manifest, tmp_path, [1], cache)
