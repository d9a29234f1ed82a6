"""Every setting of an official model is used, without effect, or refused by name."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import eat
from eat.interop.fairseq_settings import (
    CLASSIFIER,
    ENCODER,
    IGNORED,
    OBJECTIVE,
    USED,
    Ignored,
    flatten,
)

IMAGE = "modalities.image."
DECODER = IMAGE + "decoder."


@pytest.fixture
def change(official, official_finetuned, tmp_path):
    """Write an official file with other settings, and other weights."""

    def write(changed, finetuned=False, weights=None):
        source = official_finetuned if finetuned else official
        checkpoint = torch.load(source, weights_only=True)
        for name, value in changed.items():
            *folders, last = name.split(".")
            settings = checkpoint["cfg"]["model"]
            for folder in folders:
                settings = settings[folder]
            settings[last] = value
        checkpoint["model"] |= weights or {}
        torch.save(checkpoint, tmp_path / "x.pt")
        return tmp_path / "x.pt"

    return write


def real_run(folder):
    return folder / "trajectory" / "official_finetuned_real_run.pt"


def test_every_setting_of_the_fixtures_is_in_a_table(
    official, official_finetuned, parity_folder
):
    known = ENCODER | OBJECTIVE | IGNORED
    for path in (official, parity_folder / "trajectory" / "official_start.pt"):
        settings = torch.load(path, weights_only=True)["cfg"]["model"]
        names = {name for name, _ in flatten(settings)}
        # One setting came later than this file, or is written by fine-tuning only.
        assert known.keys() - names <= {"drop_path_rate"} and names <= known.keys()
    settings = torch.load(official_finetuned, weights_only=True)["cfg"]["model"]
    inner = settings.pop("pretrained_model_args")["model"]
    assert {name for name, _ in flatten(settings)} == CLASSIFIER.keys()
    assert {name for name, _ in flatten(inner)} == known.keys()


def other_than(accepted):
    """Values that a table does not accept, of the same type where there are some."""
    for value in (not accepted[0], 3, "another"):
        if all(value != item for item in accepted):
            return value
    raise AssertionError(accepted)


def refused(table):
    return [name for name, rule in table.items() if isinstance(rule, tuple)]


@pytest.mark.parametrize("name", refused(ENCODER))
def test_another_encoder_is_refused_by_name(refusal, change, name):
    path = change({name: other_than(ENCODER[name])})
    assert f"model.{name} is " in refusal(eat.load_encoder, path)
    path = change(
        {f"pretrained_model_args.model.{name}": other_than(ENCODER[name])}, True
    )
    assert f"model.{name} is " in refusal(eat.load_classifier, path)


@pytest.mark.parametrize("name", refused(OBJECTIVE))
def test_another_objective_is_refused_for_pretraining_only(refusal, change, name):
    path = change({name: other_than(OBJECTIVE[name])})
    assert f"model.{name} is " in refusal(eat.load_pretraining, path)
    assert eat.load_encoder(path, "teacher").config["dim"] == 48


@pytest.mark.parametrize("name", refused(CLASSIFIER))
def test_another_classifier_is_refused_by_name(refusal, change, name):
    path = change({name: other_than(CLASSIFIER[name])}, finetuned=True)
    assert f"model.{name} is " in refusal(eat.load_classifier, path)


def test_settings_without_effect_may_have_any_value(change):
    spec = torch.randn(2, 128, 128)
    mask = (torch.arange(64) < 51).expand(4, 64)
    noise = torch.zeros(4, 64, 48)
    plain, changed = (
        eat.load_pretraining(change(settings))
        for settings in ({}, dict.fromkeys(IGNORED, 0.25))
    )
    assert torch.equal(plain(spec, mask, noise).loss, changed(spec, mask, noise).loss)
    names = [name for name, rule in CLASSIFIER.items() if isinstance(rule, Ignored)]
    plain, changed = (
        eat.load_classifier(change(settings, finetuned=True))
        for settings in ({}, dict.fromkeys(names, 0.25))
    )
    assert torch.equal(plain(spec), changed(spec))


@pytest.mark.parametrize("place", ["", IMAGE, DECODER])
def test_unknown_settings_are_refused_by_name(refusal, change, place):
    path = change({f"{place}rotary": True})
    assert f"model.{place}rotary" in refusal(eat.load_encoder, path)


@pytest.mark.parametrize("value", ["12", 2.5, None, True, -1, 10**9, float("nan")])
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, rule in {**ENCODER, **OBJECTIVE}.items()
        if rule == USED and "loss" not in name
    ],
)
def test_settings_of_another_type_or_size_are_refused(refusal, change, name, value):
    if (name, value) in (
        ("average_top_k_layers", 10**9),  # all layers, in the official code as well
        (IMAGE + "mask_noise_std", 2.5),
    ):
        return
    refusal(eat.load_pretraining, change({name: value}))


@pytest.mark.parametrize("name", ["CLS_TOKEN", "PredictionMode.CLS_TOKEN", 2])
def test_enums_are_names_or_numbers(change, name):
    path = change({"prediction_mode": name}, finetuned=True)
    assert eat.load_classifier(path).pooling == "cls"


# -- settings that are used ------------------------------------------------------------


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_targets_average_the_last_layers(change, top_k):
    model = eat.load_pretraining(change({"average_top_k_layers": top_k}))
    spec = torch.randn(2, 128, 128)
    outputs = model.teacher.encoder(spec, return_ffn=True).ffn_outputs[-top_k:]
    layers = [output[:, 1:].detach().double().numpy() for output in outputs]
    expected = np.zeros_like(layers[0])
    for layer in layers:  # over the patches of each clip and channel
        expected += (layer - layer.mean(1, keepdims=True)) / np.sqrt(
            layer.var(1, keepdims=True) + 1e-5
        )
    expected /= top_k
    expected -= expected.mean(2, keepdims=True)
    expected /= np.sqrt(expected.var(2, keepdims=True) + 1e-5)
    assert np.abs(model.teacher(spec).numpy() - expected).max() < 2e-5


def test_the_decoder_may_be_of_another_width(change, tmp_path):
    prefix = "modality_encoders.IMAGE.decoder."
    widths = [48, 32, 32, 32]
    weights = {f"{prefix}proj.weight": torch.randn(48, 32) / 6}
    weights[f"{prefix}proj.bias"] = torch.randn(48)
    for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
        weights[f"{prefix}blocks.{i}.0.weight"] = (
            torch.randn(after, before // 4, 3, 3) / 9
        )
        weights[f"{prefix}blocks.{i}.0.bias"] = torch.randn(after)
    path = change({f"{DECODER}decoder_dim": 32}, weights=weights)
    model = eat.load_pretraining(path)

    grid = torch.randn(2, 8, 8, 48)
    x = grid.permute(0, 3, 1, 2)
    for i in range(3):
        names = [f"{prefix}blocks.{i}.0.{part}" for part in ("weight", "bias")]
        y = F.conv2d(x, *(weights[name] for name in names), padding=1, groups=4)
        y = y.permute(0, 2, 3, 1)
        y = (y - y.mean(-1, keepdim=True)) / (
            y.var(-1, unbiased=False, keepdim=True) + 1e-5
        ).sqrt()
        y = F.gelu(y).permute(0, 3, 1, 2)
        x = y if i == 0 else x + y
    expected = x.permute(0, 2, 3, 1) @ weights[f"{prefix}proj.weight"].T
    expected += weights[f"{prefix}proj.bias"]
    decoder = model.student.decoder
    assert (decoder.proj(decoder(grid)) - expected).abs().max() < 1e-5

    # It is a model like any other: losses, and a folder of ours.
    spec, mask = torch.randn(2, 128, 128), (torch.arange(64) < 51).expand(4, 64)
    noise = torch.zeros(4, 64, 48)
    eat.interop.pretrained.save_model(
        tmp_path / "model", eat.interop.loading.read_checkpoint(path)[0], model
    )
    again = eat.load_pretraining(tmp_path / "model")
    assert torch.equal(again(spec, mask, noise).loss, model(spec, mask, noise).loss)


def test_the_noise_at_masked_patches_is_that_of_the_file(change):
    path = change({f"{IMAGE}mask_noise_std": 0.25})
    assert eat.load_pretraining(path).student.mask_noise_std == 0.25


# -- a checkpoint of a real run --------------------------------------------------------


def test_fine_tuned_checkpoint_of_a_real_run(parity_folder):
    """Its scores are numpy numbers, as fairseq keeps them from 100 clips on."""
    folder = parity_folder / "trajectory"
    numbers = json.loads((folder / "real_run.json").read_text())
    clips = torch.from_numpy(np.load(folder / "clips.npz")["clips"])
    expected = load_file(folder / "real_run.safetensors")["logits"]
    classifier = eat.load_classifier(real_run(parity_folder))
    spec = clips[numbers["logits_of_clips"]].float() / 64
    assert (classifier(spec) - expected).abs().max() < 2e-6
    assert classifier.config["num_classes"] == numbers["num_classes"]


def doubled(times):
    """A list that is short in a file, and has 2^times items when written out."""
    value = [1]
    for _ in range(times):
        value = [value, value]
    return value


def shared(depth):
    """100^depth settings, none of which has a value."""
    value = {}
    for _ in range(depth):
        value = {str(number): value for number in range(100)}
    return value


@pytest.mark.parametrize(
    "name",
    ["depth", "average_top_k_layers", "norm_eps", "clone_batch", "another", "cls_loss"],
)
@pytest.mark.parametrize(
    "value",
    [doubled(60), shared(8), 10**5000, "${optimization.max_update}"],
    ids=["doubled", "shared", "huge", "reference"],
)
def test_values_that_no_message_can_contain(refusal, change, name, value):
    assert name in refusal(eat.load_pretraining, change({name: value}))


@pytest.mark.parametrize("mode", ["cls", "MAX", None, 4])
def test_an_unknown_prediction_mode(refusal, change, mode):
    path = change({"prediction_mode": mode}, finetuned=True)
    assert "prediction_mode" in refusal(eat.load_classifier, path)
