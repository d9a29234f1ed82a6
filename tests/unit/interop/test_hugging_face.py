"""The authors' Hugging Face folders give what their fairseq files give.

The folders are written here from the official fairseq fixtures, with the names that
several public conversion programs use.
"""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

import eat
from eat.errors import CheckpointError

MODALITY = "modality_encoders.IMAGE."


def their_name(name):
    name = name.removeprefix("model.").removeprefix(MODALITY)
    return "model." + name.replace("context_encoder.norm.", "pre_norm.")


def make_folder(folder, official, **added):
    """Write a folder as on the hub: the encoder, and the head if there is one."""
    weights = torch.load(official, weights_only=True)["model"]
    kept = {
        their_name(name): tensor.contiguous()
        for name, tensor in weights.items()
        if name != "_ema" and ".decoder." not in name
    }
    folder.mkdir()
    save_file({**kept, **added}, folder / "model.safetensors")
    config = {"architectures": ["EATModel"], "model_type": "eat"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(autouse=True)
def narrow_heads(monkeypatch):
    """The fixtures' attention heads are 12 wide, EAT's 64."""
    monkeypatch.setattr("eat.interop.hugging_face.HEAD_DIM", 12)


def test_pretrained_encoder(tmp_path, parity_folder, pretrain_parity):
    official = parity_folder / "official_pretrain.pt"
    ours = eat.load_encoder(make_folder(tmp_path / "hub", official))
    theirs = eat.load_encoder(official)
    assert ours.config == theirs.config
    spec = torch.randn(2, 64, 128)
    assert torch.equal(ours(spec).cls, theirs(spec).cls)
    assert torch.equal(ours(spec).patches, theirs(spec).patches)


def test_fine_tuned_classifier(tmp_path, parity_folder):
    official = parity_folder / "official_finetuned.pt"
    hub = make_folder(tmp_path / "hub", official)
    ours, theirs = eat.load_classifier(hub), eat.load_classifier(official)
    spec = torch.randn(2, 64, 128)
    assert torch.equal(ours(spec), theirs(spec))
    assert eat.load_frontend(hub).config["mean"] == -4.268


def test_a_pretrained_folder_is_an_encoder_only(tmp_path, parity_folder):
    hub = make_folder(tmp_path / "hub", parity_folder / "official_pretrain.pt")
    for load in (eat.load_pretraining, eat.load_classifier):
        with pytest.raises(CheckpointError, match=re.escape(str(hub))):
            load(hub)
    with pytest.raises(CheckpointError, match="teacher"):
        eat.load_encoder(hub, weights="teacher")


def test_unknown_weights_are_refused(tmp_path, parity_folder):
    official = parity_folder / "official_pretrain.pt"
    added = {"model.gate.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="'gate.weight'"):
        eat.load_encoder(make_folder(tmp_path / "hub", official, **added))


def test_corrupt_folders_are_refused(tmp_path, parity_folder):
    hub = make_folder(tmp_path / "hub", parity_folder / "official_pretrain.pt")
    whole = (hub / "model.safetensors").read_bytes()
    (hub / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(CheckpointError, match="model.safetensors"):
        eat.load_encoder(hub)
    (hub / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model.safetensors"):
        eat.load_encoder(hub)
