"""Fixtures shared by the unit tests."""

import json

import pytest
import torch
from safetensors.torch import save_file

MODALITY = "modality_encoders.IMAGE."


def hugging_face_name(name):
    name = name.removeprefix("model.").removeprefix(MODALITY)
    return "model." + name.replace("context_encoder.norm.", "pre_norm.")


@pytest.fixture
def write_hugging_face(monkeypatch):
    """Write an official file as a folder on the hub: the encoder, and any head.

    The names are those that several public conversion programs use.
    """
    # Attention heads are 12 wide in the fixtures, 64 in EAT.
    monkeypatch.setattr("eat.interop.hugging_face.HEAD_DIM", 12)

    def write(folder, official, **added):
        weights = torch.load(official, weights_only=True)["model"]
        state = {
            hugging_face_name(name): tensor.contiguous()
            for name, tensor in weights.items()
            if name != "_ema" and ".decoder." not in name
        }
        folder.mkdir()
        save_file({**state, **added}, folder / "model.safetensors")
        config = {"architectures": ["EATModel"], "model_type": "eat"}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return write
