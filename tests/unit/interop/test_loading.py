"""Checkpoints are restored exactly, or refused in one line."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import eat
from eat.errors import CheckpointError
from eat.interop import pretrained
from eat.interop.loading import initialize_encoder, read_checkpoint
from eat.interop.pretrained import load_strictly, save_model
from eat.model.classifier import EATClassifier
from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.pretraining.model import EATForPreTraining, EATStudent
from eat.pretraining.teacher import EMATeacher

ENCODER = {"dim": 8, "depth": 2, "num_heads": 2, "max_frames": 32}


def make_encoder(**options):
    return EATEncoder(**{**ENCODER, **options})


def make_classifier(**options):
    return EATClassifier(make_encoder(**options), num_classes=3, pooling="mean")


def make_pretraining(output_dim=None, **teacher):
    sizes = {"dim": 8, "depth": 1, "kernel": 3, "groups": 2}
    student = EATStudent(make_encoder(), CNNDecoder(**sizes, output_dim=output_dim))
    return EATForPreTraining(student, EMATeacher(make_encoder(), **teacher), 5.0)


def save_classifier(folder, **options):
    classifier = make_classifier(**options)
    save_model(folder, {"kind": "classifier", **classifier.config}, classifier)
    return classifier


def save_pretraining(folder, output_dim=None, **teacher):
    model = make_pretraining(output_dim, **teacher)
    config = {
        "kind": "pretraining",
        "encoder": model.student.encoder.config,
        "decoder": model.student.decoder.config,
        "teacher": model.teacher.config,
        "utterance_weight": model.utterance_weight,
    }
    save_model(folder, config, model)
    return model


def equal(module, other):
    ours, theirs = module.state_dict(), other.state_dict()
    same = ours.keys() == theirs.keys()
    return same and all(torch.equal(ours[key], theirs[key]) for key in ours)


# -- our folder -----------------------------------------------------------------------


def test_classifier_round_trip(tmp_path):
    saved = save_classifier(tmp_path, position_scale=0.2)
    loaded = eat.load_classifier(tmp_path)
    assert equal(saved, loaded) and not loaded.training
    assert loaded.config == saved.config
    spec = torch.randn(2, 32, 128)
    assert torch.equal(loaded(spec), saved.eval()(spec))
    encoder = eat.load_encoder(tmp_path)
    assert equal(encoder, saved.encoder) and not encoder.training


@pytest.mark.parametrize(
    "teacher",
    [{}, {"center_momentum": 0.9, "num_patches": 16}],
    ids=["EAT", "centered"],
)
def test_pretraining_round_trip(tmp_path, teacher):
    saved = save_pretraining(tmp_path, **teacher)
    if teacher:
        saved.teacher.center.normal_()
        save_model(tmp_path, read_checkpoint(tmp_path)[0], saved)
    loaded = eat.load_pretraining(tmp_path)
    assert equal(saved, loaded) and loaded.utterance_weight == 5.0
    spec = torch.randn(2, 32, 128)
    mask = (torch.arange(16) < 12).expand(4, 16)
    noise = torch.zeros(4, 16, 8)
    losses = [model(spec, mask, noise).loss for model in (saved, loaded)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_folders_of_version_0_1_load(tmp_path, momentum):
    """Version 0.1 spelled the teacher's centering `centre`."""
    options = {} if momentum is None else {"num_patches": 16}
    saved = save_pretraining(tmp_path, center_momentum=momentum, **options)
    config = json.loads((tmp_path / "config.json").read_text())
    config["teacher"] = {
        name.replace("center", "centre"): value
        for name, value in config["teacher"].items()
    }
    state = load_file(tmp_path / "model.safetensors")
    if momentum is not None:
        state["teacher.centre"] = torch.randn_like(state.pop("teacher.center"))
        saved.teacher.center.copy_(state["teacher.centre"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(state, tmp_path / "model.safetensors")
    assert "centre_momentum" in config["teacher"]
    loaded = eat.load_pretraining(tmp_path)
    assert equal(saved, loaded) and loaded.teacher.center_momentum == momentum
    assert equal(eat.load_encoder(tmp_path, "teacher"), saved.teacher.encoder)


def test_encoder_of_a_pretraining_is_student_or_teacher(tmp_path):
    saved = save_pretraining(tmp_path)
    student, teacher = (eat.load_encoder(tmp_path, w) for w in ("student", "teacher"))
    assert equal(student, saved.student.encoder) and not student.training
    assert equal(teacher, saved.teacher.encoder)
    assert not equal(student, teacher)


def test_utterance_target_of_its_own(tmp_path):
    options = {"center_momentum": 0.9, "num_patches": 4, "utterance_target": "clip"}
    saved = save_pretraining(tmp_path, **options)
    loaded = eat.load_pretraining(tmp_path)
    assert equal(saved, loaded) and loaded.teacher.config == saved.teacher.config
    config = json.loads((tmp_path / "config.json").read_text())
    config["teacher"]["center_momentum"] = None
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="center_momentum"):
        eat.load_encoder(tmp_path)


def test_encoder_of_another_objective(tmp_path):
    saved = save_pretraining(tmp_path, output_dim=5)
    assert equal(eat.load_encoder(tmp_path), saved.student.encoder)
    with pytest.raises(CheckpointError, match=f"{tmp_path}: .* 5 .* 8 "):
        eat.load_pretraining(tmp_path)


def test_saving_again_replaces(tmp_path):
    save_classifier(tmp_path)
    newer = save_classifier(tmp_path)
    assert equal(eat.load_classifier(tmp_path), newer)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


# -- the official code's files --------------------------------------------------------


def test_official_pretraining(official):
    model = eat.load_pretraining(official)
    # lambda 1, 12 clips, 4 clones in this tiny configuration.
    assert model.utterance_weight == 48.0
    raw = torch.load(official, weights_only=True)["model"]
    ours = model.student.encoder.state_dict()
    assert torch.equal(
        ours["blocks.1.attn.qkv.weight"], raw["blocks.1.attn.qkv.weight"]
    )
    theirs = raw["_ema"]["blocks.1.attn.qkv.weight"]
    assert torch.equal(
        model.teacher.encoder.state_dict()["blocks.1.attn.qkv.weight"], theirs
    )


def test_official_student_and_teacher_differ(official):
    student, teacher = (eat.load_encoder(official, w) for w in ("student", "teacher"))
    for (name, ours), theirs in zip(
        student.named_parameters(), teacher.parameters(), strict=True
    ):
        assert not torch.equal(ours, theirs), name


def test_official_classifier_round_trip(official_finetuned, tmp_path):
    classifier = eat.load_classifier(official_finetuned)
    config, _ = read_checkpoint(official_finetuned)
    save_model(tmp_path, config, classifier)
    assert equal(eat.load_classifier(tmp_path), classifier)
    assert equal(eat.load_encoder(official_finetuned), classifier.encoder)


def test_official_pretraining_round_trip(official, tmp_path):
    model = eat.load_pretraining(official)
    save_model(tmp_path, read_checkpoint(official)[0], model)
    assert equal(eat.load_pretraining(tmp_path), model)


def altered(official, path, alter):
    """A copy of an official file with its content altered in place."""
    checkpoint = torch.load(official, weights_only=True)
    alter(checkpoint)
    torch.save(checkpoint, path)
    return path


POSITIONS = "modality_encoders.IMAGE.fixed_positional_encoder.positions"


def test_other_positions_are_refused(refusal, official, tmp_path):
    def alter(checkpoint):
        checkpoint["model"][POSITIONS][0, 3, 5] += 0.01

    path = altered(official, tmp_path / "x.pt", alter)
    assert "positions" in refusal(eat.load_encoder, path)


def test_half_precision_positions_are_accepted(official, tmp_path):
    def alter(checkpoint):
        model = checkpoint["model"]
        model |= {key: model[key].half() for key in model if key != "_ema"}

    encoder = eat.load_encoder(altered(official, tmp_path / "x.pt", alter))
    assert encoder.cls_token.dtype == torch.float32


@pytest.mark.parametrize("missing", ["_ema", POSITIONS, "blocks.1.attn.qkv.weight"])
def test_official_file_without_a_part_is_refused(refusal, official, tmp_path, missing):
    path = altered(official, tmp_path / "x.pt", lambda c: c["model"].pop(missing))
    message = refusal(eat.load_pretraining, path)
    assert missing in message


def test_other_fairseq_model_is_refused(refusal, official, tmp_path):
    def alter(checkpoint):
        checkpoint["model"] = {"encoder.weight": torch.zeros(2)}

    refusal(eat.load_encoder, altered(official, tmp_path / "x.pt", alter))


def test_plain_state_dict_is_refused(refusal, tmp_path):
    torch.save(make_encoder().state_dict(), tmp_path / "x.pt")
    assert "'cfg'" in refusal(eat.load_encoder, tmp_path / "x.pt")
    torch.save([1, 2], tmp_path / "x.pt")
    assert "list" in refusal(eat.load_encoder, tmp_path / "x.pt")


# -- another model --------------------------------------------------------------------


def test_wrong_kind(refusal, tmp_path, official, official_finetuned):
    refusal(eat.load_classifier, official)
    refusal(eat.load_pretraining, official_finetuned)
    save_classifier(tmp_path)
    refusal(eat.load_pretraining, tmp_path)


def test_classifier_has_no_teacher(official_finetuned):
    with pytest.raises(CheckpointError, match=re.escape(str(official_finetuned))):
        eat.load_encoder(official_finetuned, weights="teacher")


def test_unknown_weights(official):
    with pytest.raises(CheckpointError, match="'nobody'"):
        eat.load_encoder(official, weights="nobody")


def test_weights_of_another_size_name_the_shape(refusal, tmp_path):
    save_classifier(tmp_path / "small")
    save_classifier(tmp_path / "wide", dim=16)
    shutil.copy(tmp_path / "small" / "config.json", tmp_path / "wide")
    message = refusal(eat.load_classifier, tmp_path / "wide")
    assert "encoder.cls_token" in message
    assert "[1, 1, 16]" in message and "[1, 1, 8]" in message


def test_state_without_any_key_is_refused():
    state = {f"other.{i}": torch.zeros(1) for i in range(4)}
    module = nn.Linear(1, 1)
    with pytest.raises(CheckpointError) as caught:
        load_strictly(module, state, "x.pt")
    message = str(caught.value)
    assert all(name in message for name in ("weight", "bias", "other.0", "3 more"))


def test_a_refused_state_changes_nothing():
    module = nn.Linear(2, 2)
    before = module.weight.detach().clone()
    with pytest.raises(CheckpointError, match="bias"):
        load_strictly(module, {"weight": torch.zeros(2, 2)}, "x.pt")
    assert torch.equal(module.weight, before)


def test_initialize_encoder_takes_the_student(tmp_path, official):
    saved = save_pretraining(tmp_path)
    encoder = make_encoder(drop_path=0.1, max_frames=64)
    initialize_encoder(encoder, tmp_path)
    for name, parameter in encoder.named_parameters():
        assert torch.equal(parameter, saved.student.encoder.get_parameter(name))
    assert len(encoder.positions) == 64 // 2  # its own length
    assert encoder.training


@pytest.mark.parametrize(
    ("option", "value", "theirs"),
    [
        ("position_scale", 0.2, 1.0),
        ("num_heads", 4, 2),
        ("dim", 16, 8),
        ("depth", 3, 2),
        ("num_mels", 64, 128),
    ],
)
def test_initialize_encoder_refuses_other_options(
    refusal, tmp_path, option, value, theirs
):
    save_pretraining(tmp_path)
    encoder = make_encoder(**{option: value})
    before = encoder.cls_token.detach().clone()
    message = refusal(initialize_encoder, encoder, tmp_path)
    assert f"{option} {theirs}" in message and str(value) in message
    assert torch.equal(encoder.cls_token, before)


def test_frontend_has_the_constants_of_the_corpus(official):
    frontend = eat.load_frontend(official)
    assert frontend.config == {"mean": -4.268, "std": 4.569, "num_frames": 128}


def test_failed_write_leaves_the_previous_model(tmp_path, monkeypatch):
    save_classifier(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(state, path, **_):
        path.write_bytes(b"half")
        raise pretrained.SafetensorError(
            "I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr(pretrained, "save_file", full)
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        save_classifier(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
