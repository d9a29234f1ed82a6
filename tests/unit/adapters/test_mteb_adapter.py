"""MAEB: mteb's own check of a model, and which results it keeps apart."""

import numpy as np
import pytest
from torch.utils.data import DataLoader

import eat

mteb = pytest.importorskip("mteb")
pytestmark = pytest.mark.slow  # importing mteb takes seconds


@pytest.fixture
def official(parity_folder):
    return str(parity_folder / "official_pretrain.pt")


@pytest.fixture
def make():
    from eat.adapters.mteb import EATEncoder

    return EATEncoder


def test_mock_tasks(make, official, torchcodec):
    results = mteb.mock_run(make(official, layers=1, pooling="mean"))
    ran = [status for _, status in results.items() if status is not None]
    assert len(ran) >= 7
    assert all(isinstance(status, mteb.TaskResult) for status in ran), ran


def test_clips_are_resampled(make, official):
    model = make(official, pooling="both")
    rng = np.random.default_rng(0)
    wavs = [rng.uniform(-0.1, 0.1, n).astype(np.float32) for n in (16000, 9000)]
    stereo = np.stack([wavs[0], -wavs[0]]).astype(np.float32)
    rows = [{"audio": {"array": w, "sampling_rate": 16000}} for w in (*wavs, stereo)]
    values = model.encode(DataLoader(rows, batch_size=2))
    direct = eat.from_pretrained(official)
    expected = direct.encode_batch([*wavs, 0 * wavs[0]], pooling="both")
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert model.mteb_model_meta.embed_dim == values.shape[1] == 96


def test_results_of_other_weights_and_options_are_kept_apart(make, parity_folder):
    checkpoints = [
        parity_folder / "official_pretrain.pt",
        parity_folder / "trajectory" / "official_start.pt",
    ]
    first, other = (make(str(path)).mteb_model_meta for path in checkpoints)
    layer = make(str(checkpoints[0]), layers=1).mteb_model_meta
    assert first.revision != other.revision
    assert first.revision == layer.revision
    assert first.experiment_name != layer.experiment_name
