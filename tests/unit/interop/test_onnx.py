"""ONNX: what ONNX Runtime computes from a waveform is what PyTorch does."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import eat
from eat.audio.frontend import LogMel
from eat.cli import main
from eat.errors import CheckpointError, ExperimentError
from eat.interop import onnx as exporter
from eat.interop.onnx import OnnxLogMel, export_onnx
from eat.interop.pretrained import save_model
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder

ROOT = Path(__file__).parents[3]
FRAMES = 128  # of the fixtures
FITTING = (FRAMES - 1) * 160 + 400  # samples
LENGTHS = (1, 399, 400, 16_000, FITTING - 1, FITTING, 5 * FITTING)


def noise(*shape):
    generator = torch.Generator().manual_seed(len(shape) + shape[-1])
    return 0.1 * torch.randn(*shape, generator=generator) + 0.02


def run(path, wav):
    """Return the outputs by name."""
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"wav": wav.numpy()}), strict=True))


def describe(path):
    """Return the metadata; the quantization adds some with a dot."""
    stored = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    return {k: json.loads(value) for k, value in stored.items() if "." not in k}


@pytest.fixture(scope="module")
def export(parity_folder, tmp_path_factory):
    """Export an official fixture, once; returns the file."""
    folder = tmp_path_factory.mktemp("onnx")

    @functools.cache
    def write(name):
        path = folder / f"{name}.onnx"
        export_onnx(parity_folder / f"official_{name}.pt", path)
        return path

    return write


@pytest.fixture
def exported_before(export, monkeypatch):
    """Let the next exports take the graph of the fine-tuned fixture, to save time."""
    source = export("finetuned")
    monkeypatch.setattr(
        exporter, "_write", lambda model, path, *_: shutil.copyfile(source, path)
    )
    return source


@pytest.mark.parametrize("samples", LENGTHS)
def test_front_end_is_that_of_training(samples):
    wav = noise(2, samples)
    expected = LogMel(-4.2, 4.5, FRAMES)(wav)
    found = OnnxLogMel(LogMel(-4.2, 4.5, FRAMES))(wav)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("samples", LENGTHS)
def test_classifier_equals_pytorch(export, parity_folder, samples, batch):
    model = eat.from_pretrained(parity_folder / "official_finetuned.pt", device="cpu")
    wav = noise(batch, samples)
    found = run(export("finetuned"), wav)
    encoded, spec = model(wav), model.frontend(wav)
    expected = {
        "scores": model.classifier(spec).sigmoid(),
        "features": encoded.cls,
        "frames": encoded.patches.unflatten(1, (FRAMES // 16, 8)).mean(2),
    }
    assert list(found) == [*expected, "spectrogram"]
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)
    # The logarithm of a weak band magnifies the last digit of its power.
    np.testing.assert_allclose(found["spectrogram"], spec, atol=5e-4)


@pytest.mark.slow
def test_pretrained_encoder_equals_pytorch(export, parity_folder):
    model = eat.from_pretrained(parity_folder / "official_pretrain.pt", device="cpu")
    wav = noise(2, 16_000)
    found = run(export("pretrain"), wav)
    assert list(found) == ["features", "frames", "spectrogram"]
    np.testing.assert_allclose(found["features"], model(wav).cls, atol=1e-5)
    assert "labels" not in describe(export("pretrain"))


@pytest.mark.slow
def test_metadata_and_softmax_of_single_label_models(tmp_path):
    encoder = EATEncoder(dim=16, depth=1, num_heads=2, max_frames=12_288)
    network = EATClassifier(encoder, 3)
    config = {
        "kind": "classifier",
        **network.config,
        "labels": ["dog", "cat", "sea \u2013 waves"],
        "multi_label": False,
        "frontend": {"mean": -1.0, "std": 2.0, "num_frames": 32},
    }
    save_model(tmp_path / "model", config, network)
    main(["export", "onnx", str(tmp_path / "model"), str(tmp_path / "m.onnx")])
    wav = noise(2, 5000)
    scores = run(tmp_path / "m.onnx", wav)["scores"]
    expected = eat.from_pretrained(tmp_path / "model", device="cpu").tag_batch(wav)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    described = describe(tmp_path / "m.onnx")
    assert described["labels"] == config["labels"]
    assert described["frontend"] == config["frontend"]
    assert described["multi_label"] is False
    assert described["sample_rate"] == 16_000
    assert described["max_samples"] == 31 * 160 + 400
    # Of the positions, only those of the model's frames; nothing of this machine.
    graph = onnx.load(tmp_path / "m.onnx").graph
    shapes = [list(weights.dims) for weights in graph.initializer]
    assert [16, 16] in shapes and max(max(s, default=0) for s in shapes) < 1000
    assert str(ROOT).encode() not in (tmp_path / "m.onnx").read_bytes()


@pytest.mark.slow
def test_int8_replaces_the_weights_of_linear_layers(
    exported_before, parity_folder, tmp_path
):
    path = tmp_path / "int8.onnx"
    export_onnx(parity_folder / "official_finetuned.pt", path, int8=True)
    assert path.stat().st_size < exported_before.stat().st_size
    nodes = onnx.load(path).graph.node
    integers = [node for node in nodes if node.op_type == "MatMulInteger"]
    assert len(integers) == 4 * 3 + 1  # of 3 blocks, and the classifier's
    wav = noise(2, FITTING)
    found, expected = run(path, wav), run(exported_before, wav)
    np.testing.assert_array_equal(found["spectrogram"], expected["spectrogram"])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=0.05)
    assert describe(path) == describe(exported_before)


def test_missing_package_is_named(tmp_path, parity_folder, monkeypatch):
    installed = {"onnx": 1, "onnxruntime": 1}
    monkeypatch.setattr(exporter, "find_spec", installed.get)
    with pytest.raises(ExperimentError, match=r"onnxscript .*eat-toolkit\[onnx\]"):
        export_onnx(parity_folder / "official_finetuned.pt", tmp_path / "new.onnx")


@pytest.mark.slow
def test_a_result_that_differs_is_not_written(
    exported_before, tmp_path, parity_folder, monkeypatch
):
    monkeypatch.setattr(exporter, "TOLERANCE", 0.0)
    with pytest.raises(ExperimentError, match="differs"):
        export_onnx(parity_folder / "official_finetuned.pt", tmp_path / "new.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_checkpoint_leaves_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="none.pt"):
        export_onnx(tmp_path / "none.pt", tmp_path / "new.onnx")
    assert not list(tmp_path.iterdir())
