"""Features for probes equal those of `encode_file` and of the encoder itself."""

import numpy as np
import pytest
import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence

from eat.audio.frontend import LogMel
from eat.data.manifest import LabelSet, ManifestRow, write_manifest
from eat.errors import AudioError, ExperimentError
from eat.inference.audio_encoder import AudioEncoder
from eat.inference.probe_features import (
    ProbeFeatures,
    features_of,
    statistics_of,
    untrained,
)
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder

LABELS = LabelSet(("a", "b"), ("A", "B"))


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
    found = features_of(model, manifest, tmp_path, LABELS)
    assert found.cls.shape == found.mean.shape == (5, 3, 16) and not found.tokens
    assert found.labels.tolist() == [[1, 1], [0, 1], [1, 1], [0, 1], [1, 1]]
    for row in range(4):  # the last one is cut, not encoded in windows
        path = tmp_path / f"{row}.wav"
        want = model.encode_file(path, layers="all", pooling="both").values
        got = torch.cat([found.cls[row], found.mean[row]], dim=1)
        torch.testing.assert_close(got, want)


def test_tokens_are_the_encoders_and_come_from_the_cache(model, manifest, tmp_path):
    cache = tmp_path / "cache"
    first = features_of(model, manifest, tmp_path, LABELS, [1], cache)
    wavs = [soundfile.read(tmp_path / f"{n}.wav", dtype="float32")[0] for n in range(4)]
    lengths = torch.tensor([len(wav) for wav in wavs])
    wav = pad_sequence([*map(torch.from_numpy, wavs)], batch_first=True)
    spec = model.frontend(wav, lengths)
    want = model.encoder(spec, return_layers=True).layers[1]
    rows = np.arange(5)
    tokens = torch.from_numpy(first.tokens[1][rows])
    assert tokens.dtype == torch.float16
    torch.testing.assert_close(tokens[:4].float(), want, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(first.cls[:4, 1], want[:, 0])
    means = statistics_of(model, manifest, tmp_path, LABELS, lambda x, n: x.mean(1))
    torch.testing.assert_close(means.cls[:4, 0], spec.mean(1))
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    again = features_of(model, manifest, tmp_path, LABELS, [1], cache)
    torch.testing.assert_close(again.cls, first.cls, rtol=0, atol=0)
    np.testing.assert_array_equal(again.tokens[1][rows], tokens)
    joined = ProbeFeatures.join([first, again])
    assert joined.cls.shape == (10, 3, 16)
    both = np.concatenate([tokens, tokens])
    assert joined.tokens[1].shape == both.shape
    mixed = np.array([7, 0, 4, 5, 9, 4])
    np.testing.assert_array_equal(joined.tokens[1][mixed], both[mixed])
    with pytest.raises(AudioError):  # of another layer there are none
        features_of(model, manifest, tmp_path, LABELS, [0], cache)
    assert {path.name for path in cache.iterdir()} == {"pooled.npy", "layer1.npy"}


def test_tokens_of_a_model_that_masks_padding_are_refused(model, manifest, tmp_path):
    masking = EATClassifier(model.encoder, 2, mask_padding=True)
    model = AudioEncoder(model.frontend, masking)
    with pytest.raises(ExperimentError, match="padding"):
        features_of(model, manifest, tmp_path, LABELS, [0])


def test_untrained_weights_depend_on_the_seed(model):
    state = torch.get_rng_state()
    weights = [
        untrained(model, seed).encoder.blocks[0].state_dict() for seed in (1, 1, 2)
    ]
    first, same, other = (next(iter(state.values())) for state in weights)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())
