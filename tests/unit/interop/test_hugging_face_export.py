"""Folders for transformers: what they contain, and that this toolkit reads them too."""

import ast
import json
import resource
import sys
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import eat
from eat.cli import main
from eat.errors import CheckpointError, ExperimentError
from eat.interop.card import Training, folder_texts
from eat.interop.loading import Checkpoint
from eat.interop.pretrained import save_model
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder

pytest.importorskip("transformers")
from eat.interop.hugging_face_export import export_hugging_face, modeling_source


def equal_states(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_reads_back_as_it_was(official_finetuned, tmp_path):
    names = [f"sound {i}" for i in range(7)]
    export_hugging_face(official_finetuned, tmp_path / "hf", names)
    ours, back = (
        eat.load_classifier(official_finetuned),
        Checkpoint.read(tmp_path / "hf"),
    )
    assert equal_states(ours, back.classifier())
    assert back.classifier().config == ours.config
    assert back.frontend().config == eat.load_frontend(official_finetuned).config
    assert back.labels == tuple(names)
    assert back.multi_label == Checkpoint.read(official_finetuned).multi_label
    # And once more, from the folder to a folder, by the command.
    main(["export", "hf", str(tmp_path / "hf"), str(tmp_path / "again")])
    for name in ("config.json", "preprocessor_config.json", "modeling_eat.py"):
        one, two = ((tmp_path / x / name).read_text() for x in ("hf", "again"))
        assert one == two


def test_config_says_how_scores_are_made(official_finetuned, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join("abcdefg"))
    command = ["export", "hf", str(official_finetuned), str(tmp_path / "hf")]
    main([*command, "--labels", str(names)])
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["id2label"] == {str(i): name for i, name in enumerate("abcdefg")}
    assert config["label2id"] == {name: i for i, name in enumerate("abcdefg")}
    multi_label = Checkpoint.read(official_finetuned).multi_label
    assert config["problem_type"].startswith("multi" if multi_label else "single")


def test_the_student_of_pretraining(official, tmp_path):
    export_hugging_face(official, tmp_path / "hf")
    back = Checkpoint.read(tmp_path / "hf")
    assert back.kind == "encoder" and back.labels is None
    assert equal_states(eat.load_encoder(official), back.encoder())


@pytest.mark.parametrize("name", ["official", "official_finetuned"])
def test_converts_the_authors_folders(name, request, write_hugging_face, tmp_path):
    hub = write_hugging_face(tmp_path / "hub", request.getfixturevalue(name))
    export_hugging_face(hub, tmp_path / "hf")
    assert equal_states(eat.load_encoder(hub), eat.load_encoder(tmp_path / "hf"))
    assert eat.load_frontend(tmp_path / "hf").config == eat.load_frontend(hub).config


def test_nothing_is_overwritten_or_left_behind(official, tmp_path):
    kept = tmp_path / "hf" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(ExperimentError, match="hf"):
        export_hugging_face(official, kept.parent)
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(official.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"damaged\.pt"):
        export_hugging_face(damaged, tmp_path / "out")
    assert kept.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"hf", "damaged.pt"}


def test_a_full_disk_leaves_nothing_and_is_said(official, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ExperimentError, match="hf"):
            export_hugging_face(official, tmp_path / "hf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [*tmp_path.iterdir()]


def test_as_many_labels_as_classes(official_finetuned, tmp_path, refusal):
    def export(path):
        export_hugging_face(path, tmp_path / "hf", ["one"])

    assert "7" in refusal(export, official_finetuned)


@pytest.mark.parametrize(
    ("labels", "multi_label"),
    [
        (["one"], False),
        (["one"], True),
        (["LABEL_1", "LABEL_0"], True),
        (["same", "same", "", 'a "b"', "l\u00e9t\u00e9\n\u97f3"], False),
    ],
)
@pytest.mark.parametrize("pooling", ["mean", "linear_softmax"])
def test_labels_and_scores_survive(pooling, labels, multi_label, tmp_path):
    encoder = EATEncoder(dim=16, depth=1, num_heads=2, max_frames=64)
    network = EATClassifier(encoder, len(labels), pooling)
    config = {"kind": "classifier", **network.config, "labels": labels}
    config["frontend"] = {"mean": -1.0, "std": 2.0, "num_frames": 32}
    config["multi_label"] = multi_label
    save_model(tmp_path / "model", config, network)
    export_hugging_face(tmp_path / "model", tmp_path / "hf")
    ours, back = (
        eat.from_pretrained(tmp_path / name, device="cpu") for name in ("model", "hf")
    )
    assert back.labels == ours.labels == tuple(labels)
    wav = torch.randn(2, 6000) / 10
    assert torch.equal(ours.tag_batch(wav), back.tag_batch(wav))


def test_the_card_says_how_the_model_was_trained(tmp_path):
    encoder = EATEncoder(dim=16, depth=1, num_heads=2, max_frames=64)
    config = {"kind": "encoder", "encoder": encoder.config}
    config["frontend"] = {"mean": -1.0, "std": 2.0, "num_frames": 32}
    training = Training("FSD50K", settings={"lr": 0.001}, metrics={"mAP": 0.5})
    texts = folder_texts(tmp_path, config, 7, training)
    save_model(tmp_path / "model", config, nn.ModuleDict({"encoder": encoder}), texts)
    export_hugging_face(tmp_path / "model", tmp_path / "hf")
    export_hugging_face(tmp_path / "hf", tmp_path / "again")
    for name in ("hf", "again"):
        card = (tmp_path / name / "README.md").read_text()
        assert "FSD50K" in card and "| mAP | 0.5 |" in card and "| lr | 0.001 |" in card


def test_a_weight_under_two_names_is_refused(official_finetuned, tmp_path, refusal):
    export_hugging_face(official_finetuned, tmp_path / "hf")
    weights = load_file(tmp_path / "hf" / "model.safetensors")
    weights["head.bias"] = torch.zeros(7)
    save_file(weights, tmp_path / "hf" / "model.safetensors")
    assert "two names" in refusal(eat.load_classifier, tmp_path / "hf")


@pytest.mark.parametrize("change", ["without normalization", "edited"])
def test_incomplete_folders_are_refused(change, official, tmp_path, refusal):
    folder = tmp_path / "hf"
    export_hugging_face(official, folder)
    if change == "edited":
        config = json.loads((folder / "config.json").read_text())
        del config["hidden_size"]
        (folder / "config.json").write_text(json.dumps(config))
        assert "encoder.dim" in refusal(eat.load_encoder, folder)
    else:
        (folder / "preprocessor_config.json").unlink()
        assert "preprocessor_config.json" in refusal(eat.load_encoder, folder)


def test_the_code_needs_torch_and_transformers_only():
    tree = ast.parse(modeling_source())
    needed, defined = set(), Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            needed.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            needed |= {alias.name.split(".")[0] for alias in node.names}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            defined.update(target.id for target in node.targets)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined[node.name] += 1
    assert needed - set(sys.stdlib_module_names) == {"torch", "transformers"}
    # The modules' names do not hide each other.
    assert defined.most_common(1)[0][1] == 1 and defined["EATModel"] == 1
