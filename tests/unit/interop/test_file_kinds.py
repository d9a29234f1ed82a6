"""What was given in place of a checkpoint is said, with what to give instead."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

import eat
from eat.errors import CheckpointError

FILES = {
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    "web page": b"\n<!DOCTYPE html>\n<html><body>404</body></html>",
    "server": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "Repository not found": b'{"error": "Repository not found"}',
    "Not Found": b"Not Found\n",
    "empty": b"",
    "zeros": bytes(5000),
    "GGUF": b"GGUF\x03\0\0\0" + bytes(100),
    "ONNX": b"\x08\x08\x12\x07pytorch\x1a\x032.1" + bytes(100),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "TensorFlow": b"\x1c\0\0\0TFL3" + bytes(100),
    "gzip": b"\x1f\x8b\x08" + bytes(100),
    "audio": b"RIFF\x24\0\0\0WAVEfmt ",
    "malformed": b"\x93\x01\x02\x88" * 100,
}


@pytest.mark.parametrize("kind", FILES)
def test_files(refusal, write_hugging_face, official, tmp_path, kind):
    path = tmp_path / "x.pt"
    path.write_bytes(FILES[kind])
    assert kind in refusal(eat.load_encoder, path)
    hub = write_hugging_face(tmp_path / "hub", official)
    (hub / "model.safetensors").write_bytes(FILES[kind])
    message = refusal(eat.load_encoder, hub)
    assert "model.safetensors" in message and kind in message


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_of_torch_save_that_is_cut_off(refusal, official, tmp_path, share):
    content = official.read_bytes()
    (tmp_path / "x.pt").write_bytes(content[: int(share * len(content))])
    assert "truncated" in refusal(eat.load_encoder, tmp_path / "x.pt")


def test_a_file_of_safetensors(refusal, tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    message = refusal(eat.load_encoder, tmp_path / "model.safetensors")
    assert "safetensors" in message and "folder" in message


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "config.json"),
        (["model/config.json", "save/CKPT+1/CKPT.yaml"], "{}/model"),
        (["hyperparams.yaml", "save/CKPT+1/CKPT.yaml"], "RUN/model"),
        (["CKPT.yaml", "model.ckpt"], "RUN/model"),
        (["config.json", "pytorch_model.bin"], "pytorch_model.bin"),
        (["pytorch_model.bin"], "pytorch_model.bin"),
        (["tf_model.h5"], "tf_model.h5"),
        (["checkpoint_last.pt"], "{}/checkpoint_last.pt"),
        (["snapshots/0a/config.json", "refs/main"], "{}/snapshots"),
        (["EAT-base/config.json", "EAT-large/config.json"], "{}/EAT-base"),
        (["dog.wav"], "dog.wav"),
        (["config.json"], "model.safetensors"),
    ],
)
def test_folders(refusal, tmp_path, files, found):
    folder = tmp_path / "given"
    folder.mkdir()
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"architectures": ["EATModel"]}')
    message = refusal(eat.load_encoder, folder)
    assert found.format(folder) in message


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("worstchan/EAT-base_epoch30_pretrain", "hf download worstchan/EAT-base_"),
        ("https://huggingface.co/worstchan/EAT", "download"),
        ("nothing.pt", "no such file"),
        ("x" * 5000, "too long"),
    ],
)
def test_what_is_no_file(refusal, monkeypatch, tmp_path, given, found):
    monkeypatch.chdir(tmp_path)
    assert found in refusal(eat.load_encoder, given)
    with pytest.raises(CheckpointError):
        eat.from_pretrained(given)


def test_devices_pipes_and_loops(refusal, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path in (
        tmp_path / "pipe",
        tmp_path / "loop",
        "/dev/zero",
        tmp_path / "loop/x",
    ):
        refusal(eat.load_encoder, path)


OTHERS = {
    "AST": "audio_spectrogram_transformer.embeddings.cls_token",
    "BEATs": "encoder.layers.0.self_attn.grep_linear.weight",
    "wav2vec": "feature_extractor.conv_layers.0.0.weight",
    "text": "encoder.sentence_encoder.embed_tokens.weight",
    "AudioMAE": "decoder_embed.weight",
    "speech": "modality_encoders.AUDIO.context_encoder.norm.weight",
    "CLAP": "audio_branch.norm.weight",
    "vision": "patch_embed.proj.weight",
    "another model": "layers.0.weight",
}


@pytest.mark.parametrize("model", OTHERS)
def test_checkpoints_of_other_models(refusal, tmp_path, model):
    weights = {OTHERS[model]: torch.ones(2)}
    path = tmp_path / "x.pt"
    cfg = {"model": {"_name": "x"}, "task": {}}
    for content in (weights, {"model": weights}, {"model": weights, "cfg": cfg}):
        torch.save(content, path)
        message = refusal(eat.load_encoder, path)
        assert model in message or model == "another model" and "'x'" in message
    folder = tmp_path / "hub"
    folder.mkdir()
    config = {"architectures": ["X"], "model_type": "other"}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    message = refusal(eat.load_encoder, folder)
    assert model in message or "'other'" in message


def test_eat_without_its_settings(refusal, official, tmp_path):
    checkpoint = torch.load(official, weights_only=True)
    for content in (
        {"model": checkpoint["model"]},
        checkpoint["model"],
        {"state_dict": checkpoint["model"]},
        {key: value for key, value in checkpoint.items() if key != "model"},
    ):
        torch.save(content, tmp_path / "x.pt")
        message = refusal(eat.load_encoder, tmp_path / "x.pt")
        assert "'cfg'" in message or "'model'" in message


def test_a_link_to_weights_that_are_missing(
    refusal, write_hugging_face, official, tmp_path
):
    """A cache of the Hugging Face hub contains links."""
    hub = write_hugging_face(tmp_path / "hub", official)
    (hub / "model.safetensors").rename(tmp_path / "blob")
    (hub / "model.safetensors").symlink_to("missing")
    assert "link" in refusal(eat.load_encoder, hub)


def test_an_empty_path():
    with pytest.raises(CheckpointError, match="empty"):
        eat.load_encoder("")
