"""A checkpoint that is missing, corrupt or malicious is refused in one line."""

import json
import os
import pickle

import pytest
import torch

import eat
from eat.interop.loading import read_checkpoint
from eat.interop.pretrained import save_model


@pytest.fixture
def folder(official, tmp_path):
    """A valid model folder."""
    config, _ = read_checkpoint(official)
    save_model(tmp_path / "model", config, eat.load_pretraining(official))
    return tmp_path / "model"


@pytest.mark.parametrize(
    "load", [eat.load_encoder, eat.load_classifier, eat.load_pretraining]
)
def test_missing_file_and_empty_folder(refusal, load, tmp_path):
    refusal(load, tmp_path / "none.pt")
    (tmp_path / "empty").mkdir()
    assert "config.json" in refusal(load, tmp_path / "empty")


def test_folder_without_weights(refusal, folder):
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(eat.load_encoder, folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights(refusal, folder, share):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refusal(eat.load_encoder, folder)


@pytest.mark.parametrize("content", [b"", b'{"kind": ', b"\xff\xfe"])
def test_corrupt_config(refusal, folder, content):
    (folder / "config.json").write_bytes(content)
    refusal(eat.load_encoder, folder)


@pytest.mark.parametrize("content", [{"model_type": "eat"}, [1]])
def test_config_of_another_program(refusal, folder, content):
    (folder / "config.json").write_text(json.dumps(content))
    message = refusal(eat.load_encoder, folder)
    assert "config.json" in message and "kind" in message


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_official_file(refusal, official, tmp_path, share):
    content = official.read_bytes()
    (tmp_path / "x.pt").write_bytes(content[: int(share * len(content))])
    refusal(eat.load_encoder, tmp_path / "x.pt")


@pytest.mark.parametrize(
    "content", [b"hello world", b"{}", b"PK\x03\x04", b"\x80\x02}q"]
)
def test_file_of_another_kind(refusal, tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    refusal(eat.load_encoder, tmp_path / "x.pt")


def test_corrupt_pickle(refusal, official, tmp_path):
    content = bytearray(official.read_bytes())
    content[content.index(b"modality_encoders")] ^= 0xFF  # no longer UTF-8
    (tmp_path / "x.pt").write_bytes(content)
    refusal(eat.load_encoder, tmp_path / "x.pt")


class Attack:
    """Makes a folder when unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_pickled_object_is_never_executed(refusal, official, tmp_path):
    attack = Attack(tmp_path / "executed")
    checkpoint = torch.load(official, weights_only=True)
    path = tmp_path / "x.pt"
    torch.save({**checkpoint, "args": attack}, path)
    assert "pickled objects" in refusal(eat.load_encoder, path)
    path.write_bytes(pickle.dumps({"model": attack}, protocol=2))
    refusal(eat.load_encoder, path)
    assert not (tmp_path / "executed").exists()
    pickle.loads(path.read_bytes())  # the attack itself is real
    assert (tmp_path / "executed").exists()


def test_edited_config(refusal, folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["encoder"]["widht"] = 16
    path.write_text(json.dumps(config))
    assert "'widht'" in refusal(eat.load_encoder, folder)
    encoder = config.pop("encoder")
    path.write_text(json.dumps(config))
    assert "'encoder'" in refusal(eat.load_pretraining, folder)
    del encoder["widht"], config["frontend"]
    path.write_text(json.dumps({**config, "encoder": encoder}))
    assert "'mean'" in refusal(eat.load_frontend, folder)
