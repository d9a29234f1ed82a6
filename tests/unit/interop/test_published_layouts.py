"""Checkpoints as others publish them: lengths of positions, SSLAM, Hugging Face."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import eat
from eat.interop.labels import audioset_names
from eat.interop.loading import Checkpoint
from eat.model.patching import sincos_positions

POSITIONS = "modality_encoders.IMAGE.fixed_positional_encoder.positions"


@pytest.fixture
def change(official, official_finetuned, tmp_path):
    """Write an official file after a function has changed its content."""

    def write(alter, finetuned=False):
        source = official_finetuned if finetuned else official
        content = torch.load(source, weights_only=True)
        alter(content)
        torch.save(content, tmp_path / "x.pt")
        return tmp_path / "x.pt"

    return write


def with_positions(rows, max_length):
    """Give student and teacher a table of another length."""

    def alter(content):
        table = sincos_positions(48, (rows // 8, 8))[None]
        content["model"][POSITIONS] = content["model"]["_ema"][POSITIONS] = table
        image = content["cfg"]["model"]["modalities"]["image"]
        image.pop("max_length")  # files of before 2025 do not have it
        if max_length:
            image["max_length"] = max_length

    return alter


@pytest.mark.parametrize(("rows", "max_length"), [(512, None), (6144, 768)])
@torch.no_grad()
def test_both_published_lengths_of_positions(change, official, rows, max_length):
    path = change(with_positions(rows, max_length))
    spec = torch.randn(1, 128, 128)
    for weights in ("student", "teacher"):
        encoder = eat.load_encoder(path, weights)
        assert encoder.config["max_frames"] == rows * 2
        expected = eat.load_encoder(official, weights)(spec).patches
        assert torch.equal(encoder(spec).patches, expected)
    assert eat.load_pretraining(path).student.encoder.config["max_frames"] == rows * 2


def test_sslam_is_read_as_eat(change, official, write_hugging_face, tmp_path):
    """SSLAM trains EAT's network further, with 8 clones, on mixtures of clips."""

    def alter(content):
        content["cfg"]["model"]["clone_batch"] = 8
        content["cfg"]["checkpoint"]["continue_once"] = "EAT-base_epoch10_pt.pt"
        with_positions(6144, 768)(content)

    path = change(alter)
    hub = write_hugging_face(tmp_path / "hub", path)
    config = {"architectures": ["SSLAMModel"], "model_type": "sslam", "auto_map": {}}
    (hub / "config.json").write_text(json.dumps(config))
    spec = torch.randn(1, 128, 128)
    expected = eat.load_encoder(official)(spec).cls
    assert torch.equal(eat.load_encoder(path)(spec).cls, expected)
    assert torch.equal(eat.load_encoder(hub)(spec).cls, expected)
    (hub / "config.json").write_text(json.dumps({"auto_map": {}}))
    assert torch.equal(eat.load_encoder(hub)(spec).cls, expected)


def test_labels_of_audioset_are_its_display_names(change):
    ids = {"/m/04rlf": "1", "/m/09x0r": "0", "own": "2"}
    names = ("Speech", "Music", "own")

    def alter(content):
        content["task_state"]["labels"] = ids
        content["cfg"]["model"]["num_classes"] = 3
        for part in ("weight", "bias"):
            content["model"][f"head.{part}"] = content["model"][f"head.{part}"][:3]

    assert Checkpoint.read(change(alter, finetuned=True)).labels == names
    assert {*names[:2]} < {*audioset_names()}


@pytest.mark.parametrize(
    "state",
    [None, [], {}, {"labels": None}, {"labels": {"a": "0"}}, {"labels": {1: 2}}],
)
def test_labels_that_do_not_fit_are_none(change, state):
    def alter(content):
        content["task_state"] = state

    assert Checkpoint.read(change(alter, finetuned=True)).labels is None


@pytest.mark.parametrize("scale", [0.2, 0.001, 0.0, -3.0])
def test_scaled_positions_are_recognized(scale, change, write_hugging_face, tmp_path):
    def alter(content):
        for weights in (content["model"], content["model"]["_ema"]):
            weights[POSITIONS] *= scale

    path = change(alter)
    hub = write_hugging_face(tmp_path / "hub", path)
    for source in (path, hub):
        assert eat.load_encoder(source).config["position_scale"] == scale


def test_a_teacher_with_other_positions_is_refused(change, refusal):
    def alter(content):
        content["model"]["_ema"][POSITIONS] *= 0.2

    assert "positions" in refusal(eat.load_encoder, change(alter))


def test_loaded_weights_do_not_change_with_the_file(tmp_path, official):
    encoder = eat.load_encoder(official)
    content = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    save_file(content, tmp_path / "model.safetensors")
    config = {"kind": "encoder", "encoder": encoder.config}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = eat.load_encoder(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size - size // 2))
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, content[f"encoder.{name}"])
    assert load_file(tmp_path / "model.safetensors")
