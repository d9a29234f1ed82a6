"""The authors' Hugging Face folders give what their fairseq files give.

The folders are written from the official fairseq fixtures.
"""

import re

import pytest
import torch

import eat
from eat.errors import CheckpointError


def test_pretrained_encoder(write_hugging_face, tmp_path, official):
    ours = eat.load_encoder(write_hugging_face(tmp_path / "hub", official))
    theirs = eat.load_encoder(official)
    assert ours.config == theirs.config
    spec = torch.randn(2, 64, 128)
    assert torch.equal(ours(spec).cls, theirs(spec).cls)
    assert torch.equal(ours(spec).patches, theirs(spec).patches)


def test_fine_tuned_classifier(write_hugging_face, tmp_path, official_finetuned):
    hub = write_hugging_face(tmp_path / "hub", official_finetuned)
    ours, theirs = (eat.load_classifier(path) for path in (hub, official_finetuned))
    spec = torch.randn(2, 64, 128)
    assert torch.equal(ours(spec), theirs(spec))
    assert eat.load_frontend(hub).config["mean"] == -4.268


def test_a_pretrained_folder_is_an_encoder_only(write_hugging_face, tmp_path, official):
    hub = write_hugging_face(tmp_path / "hub", official)
    for load in (eat.load_pretraining, eat.load_classifier):
        with pytest.raises(CheckpointError, match=re.escape(str(hub))):
            load(hub)
    with pytest.raises(CheckpointError, match="teacher"):
        eat.load_encoder(hub, weights="teacher")


def test_unknown_weights_are_refused(write_hugging_face, tmp_path, official):
    added = {"model.gate.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="'gate.weight'"):
        eat.load_encoder(write_hugging_face(tmp_path / "hub", official, **added))


def test_corrupt_folders_are_refused(write_hugging_face, tmp_path, official):
    hub = write_hugging_face(tmp_path / "hub", official)
    whole = (hub / "model.safetensors").read_bytes()
    (hub / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(CheckpointError, match="model.safetensors"):
        eat.load_encoder(hub)
    (hub / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model.safetensors"):
        eat.load_encoder(hub)
