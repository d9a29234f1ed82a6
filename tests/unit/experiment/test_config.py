"""Settings come from a YAML file, what it includes and the command line."""

import re

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from hypothesis import given
from hypothesis import strategies as st

from eat.errors import ExperimentError
from eat.experiment.command_line import parse_command_line
from eat.experiment.config import load_config, read_scalar_settings, read_settings
from eat.experiment.schema import PATCH as PATCH_OF_SCHEMA
from eat.experiment.yaml_tree import read_hyperpyyaml
from eat.model.patching import PATCH

FULL = """\
# The full file.
data_folder: !PLACEHOLDER     # where the data is
output_folder: !PLACEHOLDER
lr: 0.5                       # the paper's
steps: 10
warmup_steps: !ref <steps> // 5
roll: True
size: !tuple (5, 5)
layer: !new:torch.nn.Linear
    in_features: 2            # two
    out_features: !ref <steps>
twice: [!ref <layer>, !ref <layer>]
opt_class: !name:torch.optim.AdamW
    betas: [0.9, 0.95]
    fused: null
precision: bf16
ckpt_interval_minutes: 30
"""
MINI = """\
# The short file.
!include:full.yaml

steps: 5
warmup_steps: !ref <steps> + 1
layer:
    in_features: 3
opt_class:
    fused: True
"""
FOLDERS = {"data_folder": "DATA", "output_folder": "RUN"}


@pytest.fixture
def full(tmp_path):
    """Path of the full file; the short one lies beside it."""
    (tmp_path / "mini.yaml").write_text(MINI)
    path = tmp_path / "full.yaml"
    path.write_text(FULL)
    return path


@pytest.fixture
def mini(full):
    return full.with_name("mini.yaml")


def refuse(path, overrides, *told):
    """The settings are refused, and the message names the file and what is wrong."""
    with pytest.raises(ExperimentError, match=re.escape(str(path))) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    for word in told:
        assert word in message
    return message


def test_references_follow_overrides(full):
    config = load_config(full, FOLDERS | {"steps": "20", "lr": "5e-4"})
    assert config.values["warmup_steps"] == 4 and config.values["lr"] == 5e-4
    hparams = config.instantiate()
    assert hparams["warmup_steps"] == 4 and hparams["lr"] == 5e-4
    assert hparams["size"] == (5, 5)
    assert isinstance(hparams["layer"], torch.nn.Linear)
    assert hparams["layer"].out_features == 20


def test_an_object_is_built_once(full):
    hparams = load_config(full, FOLDERS).instantiate()
    assert hparams["twice"][0] is hparams["twice"][1] is hparams["layer"]


def test_text_is_all_that_is_needed(full, tmp_path):
    config = load_config(full, FOLDERS | {"lr": "0.25"})
    assert load_hyperpyyaml(config.text).keys() == config.values.keys()
    (tmp_path / "hyperparams.yaml").write_text(config.text)
    assert read_settings(tmp_path) == config.values
    scalars = read_scalar_settings(tmp_path)
    assert scalars["lr"] == 0.25 and not scalars.keys() & {"layer", "twice"}
    assert read_settings(tmp_path / "none") == {}


def test_comments_go_with_the_values_they_describe(full):
    text = load_config(full, FOLDERS | {"layer": "{in_features: 4}"}).text
    assert "paper's" in text and "two" not in text and "where" not in text


# -- refused -----------------------------------------------------------------------


def test_missing_file(tmp_path):
    refuse(tmp_path / "none.yaml", {})


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2", "- a", "word"])
def test_no_settings_file(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    refuse(tmp_path / "bad.yaml", {})


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "\n".join(
    f"{x}: &{x} [{', '.join([f'*{y}'] * 10)}]"
    for y, x in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "content",
    [
        *(b"a: \xe9", b"a:\n\tb: 1", b"a: \x00", b"a: \x1b[31m\nb: [", b"\xff\xfea: 1"),
        *(b"a: 2026-99-99", b"a: *b", BOMB.encode()),
        *(b"a: " + b"{a: " * 2000, b"? [a]\n: 1"),
        *(b"a: 1\n---\nb: 2", b"a: !!int x", b"!include:bad.yaml", b"!include:.\na: 1"),
        *(b"a: !ref <b>", b"a: !ref <a>", b"a: !ref <b>\nb: !ref <a>", b"1: 2"),
        *(b"a: 1\nb: !ref <a> // 0", b"a: !include:none.yaml", b"null: 1"),
        b"a: " + b"x" * 2_000_000,
        *(b"a: !applyref:nothing.at.all\n  b: 1", b"%YAML 9.9\n---\na: 1", b"a: .inf"),
        *(b"a: [.nan]", b"a: {b: -.inf}", b"a: 1e999", b"a: !PLACEHOLDER"),
    ],
    ids=lambda content: ascii(content[:30]),
)
def test_files_that_are_no_settings(tmp_path, content):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ExperimentError) as caught:
        load_config(path)
    assert str(caught.value).isprintable() and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: !ref", "a: !b"])
def test_odd_files_do_not_hang(tmp_path, text):
    (tmp_path / "odd.yaml").write_text(text)
    assert load_config(tmp_path / "odd.yaml").values.keys() == {"a"}


def test_files_of_other_systems(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 'no'\r\nc: \xc3\xa9\r\nd: \"(1)\"\r\n")
    config = load_config(path)
    assert config.values == {"a": 1, "b": "no", "c": "é", "d": "(1)"}
    assert config.instantiate() == config.values


@given(content=st.binary(max_size=40) | st.text(max_size=60).map(str.encode))
def test_any_file_is_accepted_or_refused(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    try:
        load_config(path)
    except ExperimentError as error:
        assert str(error).isprintable()


def test_unknown_settings(full):
    refuse(full, FOLDERS | {"warmup_step": "3"}, "warmup_step ", "warmup_steps?")
    refuse(full, FOLDERS | {"layer": "{in_feature: 3}"}, "in_feature ", "in_features?")
    assert "?" not in refuse(full, FOLDERS | {"xyz": "3"}, "xyz")


def test_missing_settings_are_all_named(full):
    refuse(full, {}, "--data_folder", "--output_folder")
    assert "--data_folder" not in refuse(full, {"data_folder": "A"}, "--output_folder")


def test_options_that_cannot_be_read(full):
    refuse(full, FOLDERS | {"lr": "[1"}, "lr", "[1")
    refuse(full, FOLDERS | {"layer": "[1"}, "--layer")
    refuse(full, FOLDERS | {"layer": "{bias: &a 1, in_features: *a}"}, "--layer")
    refuse(full, FOLDERS | {"layer": "!apply:os.getpid []"}, "--layer")


def test_bad_reference(full):
    full.write_text(FULL.replace("<steps> // 5", "<stepz>"))
    refuse(full, FOLDERS, "stepz")


def test_object_that_cannot_be_built(full):
    full.write_text(FULL.replace("in_features", "bad"))
    with pytest.raises(ExperimentError, match="torch.nn.Linear") as caught:
        load_config(full, FOLDERS).instantiate()
    assert "'bad'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"), [("lr", "abc"), ("lr", "True"), ("steps", "1x"), ("roll", "yes")]
)
def test_wrong_types(full, key, value):
    refuse(full, FOLDERS | {key: value}, key, value)


def load(path):
    return load_config(path, FOLDERS).values


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "null"])
@pytest.mark.parametrize("name", ["batch_size", "keep_checkpoints"])
def test_counts_are_positive_integers(full, name, value):
    full.write_text(FULL + f"{name}: 4\n")
    refuse(full, FOLDERS | {name: value}, name)


def test_spectrograms_are_whole_patches(full):
    full.write_text(FULL + "num_frames: 64\n")
    load_config(full, FOLDERS | {"num_frames": "128"})
    refuse(full, FOLDERS | {"num_frames": "100"}, "num_frames", "100", str(PATCH))
    assert PATCH_OF_SCHEMA == PATCH


# -- included files ----------------------------------------------------------------


def test_included_file_with_differences(mini):
    values = load(mini)
    assert values["steps"] == 5 and values["warmup_steps"] == 6
    assert values["lr"] == 0.5 and values["data_folder"] == "DATA"
    assert values["layer"] == {"!": "new:torch.nn.Linear"} | {
        "in_features": 3,
        "out_features": 5,
    }
    assert values["opt_class"]["fused"] is True
    assert values["opt_class"]["betas"] == [0.9, 0.95]


def test_object_with_a_tag_replaces_the_former(mini):
    mini.write_text(MINI.replace("layer:", "layer: !new:torch.nn.Identity"))
    values = load(mini)
    assert values["layer"] == {"!": "new:torch.nn.Identity", "in_features": 3}
    assert values["twice"] == [values["layer"]] * 2  # references follow


def test_every_key_of_both_files_can_be_overridden(mini):
    overrides = FOLDERS | {"lr": "1", "steps": "7", "layer": "{bias: False}"}
    refuse(mini, overrides, "bias")
    values = load_config(mini, overrides | {"layer": "{in_features: 9}"}).values
    assert values["lr"] == 1 and values["warmup_steps"] == 8
    assert values["layer"]["in_features"] == 9 and values["layer"]["out_features"] == 7


def test_unknown_keys_of_the_short_file(mini):
    mini.write_text(MINI + "warmup: 1\n")
    refuse(mini, FOLDERS, "warmup ")


def test_included_file_that_does_not_exist(mini):
    mini.write_text(MINI.replace("full", "none"))
    with pytest.raises(ExperimentError, match=re.escape(str(mini.parent / "none"))):
        load(mini)


def test_included_text_serves_plain_hyperpyyaml(mini, full):
    hparams = load_hyperpyyaml(read_hyperpyyaml(mini), FOLDERS | {"steps": 9})
    assert hparams["warmup_steps"] == 10 and hparams["layer"].out_features == 9
    assert load_hyperpyyaml(read_hyperpyyaml(full), FOLDERS)["steps"] == 10


def test_values_may_include_files_too(full):
    (full.parent / "part.yaml").write_text("a: 1\nb: !ref <a> + 1\n")
    full.write_text(FULL + "part: !include:part.yaml\n    a: 2\n")
    assert load(full)["part"] == {"a": 2, "b": 3}


# -- SpeechBrain's run options -----------------------------------------------------


def test_run_options_of_the_command_line_win(full):
    run_opts = parse_command_line(
        ["x.yaml", "--precision=fp32", "--ckpt_interval_steps", "5", "--noprogressbar"]
    ).run_opts
    values = load_config(full, FOLDERS, run_opts).values
    assert values["precision"] == "fp32" and values["ckpt_interval_minutes"] == 0
    assert "ckpt_interval_steps" not in values and "noprogressbar" not in values
    run_opts = parse_command_line(["x.yaml", "--device", "cpu"]).run_opts
    assert load_config(full, FOLDERS, run_opts).values["precision"] == "bf16"
