"""Weights: names of wrappers, several files, types, values, rights."""

import json
import os
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

import eat
from eat.interop import pretrained
from eat.interop.loading import Checkpoint
from eat.interop.pretrained import save_model
from eat.interop.stored import read_floats
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path):
    encoder = EATEncoder(dim=8, depth=2, num_heads=2, max_frames=32)
    classifier = EATClassifier(encoder, 3)
    config = {"kind": "classifier", **classifier.config}
    save_model(tmp_path / "model", config, classifier)
    return tmp_path / "model"


@pytest.fixture
def rename(folder):
    """Rename all weights; returns the state as it was."""

    def write(rename):
        state = load_file(folder / WEIGHTS)
        save_file({rename(name): t for name, t in state.items()}, folder / WEIGHTS)
        return state

    return write


# -- names -----------------------------------------------------------------------------

PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_names_of_wrapped_modules(rename, folder, prefix):
    state = rename(lambda name: prefix + name)
    loaded = eat.load_classifier(folder).state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)


def test_names_of_a_compiled_part(rename, folder):
    state = rename(lambda name: name.replace("encoder.", "encoder._orig_mod."))
    loaded = eat.load_classifier(folder).state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_wrapped_modules_in_official_files(official, tmp_path, prefix):
    checkpoint = torch.load(official, weights_only=True)
    model = checkpoint["model"]
    teacher = {prefix + name: tensor for name, tensor in model.pop("_ema").items()}
    model = {prefix + name: tensor for name, tensor in model.items()}
    torch.save({**checkpoint, "model": {**model, "_ema": teacher}}, tmp_path / "x.pt")
    ours, theirs = (
        eat.load_pretraining(path) for path in (tmp_path / "x.pt", official)
    )
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name


def test_a_weight_with_and_without_wrapper(refusal, folder):
    state = load_file(folder / WEIGHTS)
    state["module.head.bias"] = torch.zeros(3)
    save_file(state, folder / WEIGHTS)
    assert "'head.bias'" in refusal(eat.load_classifier, folder)


# -- several files ---------------------------------------------------------------------


@pytest.fixture
def shards(folder):
    """Split the weights in two files; returns a function that writes the index."""
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = list(state)
    where = {}
    for i, part in enumerate((names[:9], names[9:])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file)
        where |= dict.fromkeys(part, file)

    def write(**changed):
        text = json.dumps({"metadata": {}, "weight_map": {**where, **changed}})
        (folder / f"{WEIGHTS}.index.json").write_text(text)
        return state

    return write


def test_weights_in_several_files(shards, folder):
    state = shards()
    loaded = eat.load_classifier(folder).state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)


def test_several_files_of_a_hugging_face_folder(write_hugging_face, tmp_path, official):
    hub = write_hugging_face(tmp_path / "hub", official)
    whole = eat.load_encoder(hub)
    state = load_file(hub / WEIGHTS)
    (hub / WEIGHTS).rename(hub / "model-00001-of-00001.safetensors")
    where = dict.fromkeys(state, "model-00001-of-00001.safetensors")
    (hub / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": where}))
    assert torch.equal(eat.load_encoder(hub).cls_token, whole.cls_token)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("model-00003-of-00003.safetensors", "model-00003-of-00003.safetensors"),
        ("../model.safetensors", "'../model.safetensors'"),
        ("/etc/x.safetensors", "'/etc/x.safetensors'"),
        ("..\\x.safetensors", "x.safetensors'"),
        ("..", "'..'"),
        ("", "''"),
        ("a\0.safetensors", "x00"),
        ("config.json", "'config.json'"),
        (3, "3"),
        (None, "None"),
    ],
)
def test_names_in_an_index(refusal, shards, folder, name, found):
    shards(**{"head.bias": name})
    assert found in refusal(eat.load_classifier, folder)


def test_weights_that_only_the_index_has(refusal, shards, folder):
    shards(**{"head.gate": "model-00002-of-00002.safetensors"})
    assert "'head.gate'" in refusal(eat.load_classifier, folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": [1]}', "{", '{"a": NaN}'])
def test_malformed_index(refusal, shards, folder, text):
    (folder / f"{WEIGHTS}.index.json").write_text(text)
    assert "index.json" in refusal(eat.load_classifier, folder)


# -- types and values ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_fp32(folder, dtype):
    state = {name: t.to(dtype) for name, t in load_file(folder / WEIGHTS).items()}
    save_file(state, folder / WEIGHTS)
    loaded = eat.load_classifier(folder)
    assert torch.equal(loaded.head.weight, state["head.weight"].float())
    assert loaded.head.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.float8_e4m3fn]
)
def test_weights_that_are_no_floats(refusal, folder, official_finetuned, dtype):
    state = load_file(folder / WEIGHTS)
    state["head.weight"] = state["head.weight"].to(dtype)
    save_file(state, folder / WEIGHTS)
    assert "'head.weight'" in refusal(eat.load_classifier, folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_official_weights_that_are_no_floats(
    refusal, official_finetuned, tmp_path, dtype
):
    checkpoint = torch.load(official_finetuned, weights_only=True)
    model = checkpoint["model"]
    model["head.weight"] = model["head.weight"].to(dtype)
    torch.save(checkpoint, tmp_path / "x.pt")
    message = refusal(eat.load_classifier, tmp_path / "x.pt")
    assert "'head.weight'" in message and str(dtype).removeprefix("torch.") in message


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 1e300, 1e30]
)
def test_weights_that_are_not_finite(refusal, folder, value):
    state = load_file(folder / WEIGHTS)
    state["encoder.norm.bias"] = state["encoder.norm.bias"].double()
    state["encoder.norm.bias"][2:5] = value
    save_file(state, folder / WEIGHTS)
    message = refusal(eat.load_encoder, folder)
    assert "'encoder.norm.bias'" in message and "3 of 8" in message


@pytest.mark.parametrize("std", [0, -1.0, float("nan"), float("inf"), 1e-30, "4.5"])
def test_normalization_that_spoils_all_features(refusal, folder, official, std):
    config = json.loads((folder / "config.json").read_text())
    config["frontend"] = {"mean": -4.0, "std": std, "num_frames": 32}
    (folder / "config.json").write_text(json.dumps(config))
    message = refusal(eat.load_frontend, folder)
    assert "std" in message or "JSON" in message
    with pytest.raises(eat.errors.CheckpointError, match="std"):
        eat.from_pretrained(official, std=std)


# -- files -----------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_written_files_respect_the_umask(folder, tmp_path, umask):
    classifier = eat.load_classifier(folder)
    config = {"kind": "classifier", **classifier.config}
    before = os.umask(umask)
    try:
        save_model(tmp_path / "run" / "model", config, classifier)
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "run").rglob("*")
    }
    expected = 0o666 & ~umask
    assert modes == {
        "model": 0o777 & ~umask,
        "config.json": expected,
        WEIGHTS: expected,
    }


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "x.pt", "."])
def test_permission_is_named(refusal, folder, official, name):
    (folder / "x.pt").write_bytes(official.read_bytes())
    path = folder / name
    for parent in folder.parents:  # others may pass
        if parent.stat().st_uid == os.geteuid() and "pytest" in str(parent):
            parent.chmod(0o755)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        message = refusal(eat.load_encoder, path if name == "x.pt" else folder)
    finally:
        if user == 0:
            os.seteuid(0)
        path.chmod(0o755)
    assert "ermission" in message and "malformed" not in message


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_read_errors_are_named(refusal, folder, name):
    (folder / name).unlink()
    (folder / name).symlink_to("/proc/self/mem")  # reading its beginning fails
    message = refusal(eat.load_encoder, folder)
    assert name in message and "nput/output error" in message


def test_links_and_pipes(refusal, folder):
    for name in ("config.json", WEIGHTS):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).symlink_to(name)
        assert name in refusal(eat.load_encoder, folder)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        assert name in refusal(eat.load_encoder, folder)
        (folder / name).unlink()
        (folder / name).write_bytes(content)


def test_a_config_that_cannot_be_written_leaves_the_previous_model(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    classifier = eat.load_classifier(folder)
    with pytest.raises(TypeError):
        save_model(folder, {"kind": object()}, classifier)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrained.Path, "write_text", full)
    with pytest.raises(eat.errors.CheckpointError, match="space"):
        save_model(folder, {"kind": "classifier"}, classifier)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_config_of_one_model_and_weights_of_another(refusal, folder):
    """As while a folder is being replaced."""
    encoder = EATEncoder(dim=8, depth=3, num_heads=2, max_frames=32)
    other = EATClassifier(encoder, 3)
    weights = (folder / WEIGHTS).read_bytes()
    save_model(folder, {"kind": "classifier", **other.config}, other)
    (folder / WEIGHTS).write_bytes(weights)
    message = refusal(eat.load_classifier, folder)
    assert "depth" in message and "3" in message and "2" in message


def test_only_the_weights_that_are_used_are_read(official, monkeypatch):
    """Half of a pre-trained checkpoint is its teacher."""
    checkpoint = Checkpoint.read(official)
    read = []
    monkeypatch.setattr(
        "eat.interop.loading.read_floats",
        lambda stored, path: read.extend(stored) or read_floats(stored, path),
    )
    checkpoint.encoder()
    assert read and all(name.startswith("student.encoder.") for name in read)
