"""A checkpoint that is missing, damaged or hostile is refused in one line."""

import json
import os
import pickle

import pytest
import torch

import eat
from eat.errors import CheckpointError
from eat.interop.loading import read_checkpoint
from eat.interop.pretrained import save_model


def refusal(load, path):
    """The one line with which a checkpoint is refused, without its path."""
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.fixture
def official(parity_folder):
    return parity_folder / "official_pretrain.pt"


@pytest.fixture
def folder(official, tmp_path):
    """A model folder of ours that is in order."""
    config, _ = read_checkpoint(official)
    save_model(tmp_path / "model", config, eat.load_pretraining(official))
    return tmp_path / "model"


@pytest.mark.parametrize(
    "load", [eat.load_encoder, eat.load_classifier, eat.load_pretraining]
)
def test_missing_file_and_empty_folder(load, tmp_path):
    assert refusal(load, tmp_path / "none.pt") == "no such file"
    (tmp_path / "empty").mkdir()
    message = refusal(load, tmp_path / "empty")
    assert message.startswith("no config.json in it (give a model folder")


def test_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    assert refusal(eat.load_encoder, folder).startswith("no model.safetensors in it")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights(folder, share):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert refusal(eat.load_encoder, folder).startswith("damaged model folder (")


@pytest.mark.parametrize("content", [b"", b'{"kind": ', b"\xff\xfe"])
def test_damaged_config(folder, content):
    (folder / "config.json").write_bytes(content)
    assert refusal(eat.load_encoder, folder).startswith("damaged model folder (")


@pytest.mark.parametrize("content", [{"model_type": "eat"}, [1]])
def test_config_of_something_else(folder, content):
    (folder / "config.json").write_text(json.dumps(content))
    message = refusal(eat.load_encoder, folder)
    assert message == "config.json names no kind of model of ours"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_official_file(official, tmp_path, share):
    content = official.read_bytes()
    (tmp_path / "x.pt").write_bytes(content[: int(share * len(content))])
    message = refusal(eat.load_encoder, tmp_path / "x.pt")
    assert message.startswith("cannot be read as plain tensors (")


@pytest.mark.parametrize(
    "content", [b"hello world", b"{}", b"PK\x03\x04", b"\x80\x02}q"]
)
def test_file_of_another_kind(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    message = refusal(eat.load_encoder, tmp_path / "x.pt")
    assert message.startswith("cannot be read as plain tensors (")


def test_corrupted_pickle(official, tmp_path):
    content = bytearray(official.read_bytes())
    content[content.index(b"modality_encoders")] ^= 0xFF  # no longer UTF-8
    (tmp_path / "x.pt").write_bytes(content)
    message = refusal(eat.load_encoder, tmp_path / "x.pt")
    assert message.startswith("cannot be read as plain tensors (")


class Attack:
    """Makes a folder when unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_pickled_object_is_never_executed(official, tmp_path):
    attack = Attack(tmp_path / "executed")
    checkpoint = torch.load(official, weights_only=True)
    path = tmp_path / "x.pt"
    torch.save({**checkpoint, "args": attack}, path)
    message = refusal(eat.load_encoder, path)
    assert "pickled objects, which are never loaded here" in message
    path.write_bytes(pickle.dumps({"model": attack}, protocol=2))
    refusal(eat.load_encoder, path)
    assert not (tmp_path / "executed").exists()
    pickle.loads(path.read_bytes())  # the attack itself is real
    assert (tmp_path / "executed").exists()


def test_edited_config(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["encoder"]["widht"] = 16
    path.write_text(json.dumps(config))
    assert "unexpected keyword argument 'widht'" in refusal(eat.load_encoder, folder)
    del config["encoder"], config["frontend"]
    path.write_text(json.dumps(config))
    assert "('encoder';" in refusal(eat.load_pretraining, folder)
    assert "('frontend';" in refusal(eat.load_frontend, folder)
