"""`eat info`: what it says is true, and no weights are read."""

import json

import pytest

import eat
from eat.interop import loading


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    def refuse(*_):
        raise AssertionError("weights were read")

    monkeypatch.setattr(loading, "read_floats", refuse)


def describe(eat_command, path):
    status, out, _ = eat_command("info", path, "--json")
    assert status == 0
    return json.loads(out)


def test_classifier(eat_command, tagger):
    facts = describe(eat_command, tagger)
    assert facts["kind"] == "classifier"
    assert facts["classes"]["number"] == 5 and facts["classes"]["scores"] == "sigmoid"
    assert facts["classes"]["labels"][:2] == ["Dog", "Cat"]
    assert facts["optimizer_step"] == 1200
    assert facts["input"]["frames"] == 64 and facts["input"]["seconds"] == 0.64
    sizes = {path.name: path.stat().st_size for path in tagger.iterdir()}
    assert facts["bytes"] == sizes
    assert facts["stored_as"] == "float32"


@pytest.mark.parametrize("name", ["pretrain", "finetuned"])
def test_parameters_are_those_of_the_network(
    eat_command, parity_folder, monkeypatch, name
):
    path = parity_folder / f"official_{name}.pt"
    facts = describe(eat_command, path)
    monkeypatch.undo()
    encoder = eat.load_encoder(path)
    own = sum(parameter.numel() for parameter in encoder.parameters())
    assert facts["parameters"]["encoder"] == own
    assert facts["encoder"]["depth"] == len(encoder.blocks)
    assert "fairseq" in facts["format"]


def test_table(eat_command, tagger):
    status, out, _ = eat_command("info", tagger)
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert status == 0
    assert rows["model"].strip() == str(tagger)
    assert "5" in rows["classes"] and "Käfer" in rows["classes"]
    assert "model.safetensors" in rows["bytes"]


def test_missing_model(eat_command, tmp_path):
    status, out, err = eat_command("info", tmp_path / "nothing")
    assert status == 1 and not out
    assert "nothing" in err and len(err.splitlines()) == 1
