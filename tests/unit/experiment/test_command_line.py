"""Options arrive as they were given, whatever their values hold."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from eat.errors import ExperimentError
from eat.experiment.command_line import parse_command_line, require_device
from eat.experiment.config import load_config, read_settings
from eat.experiment.help import help_text
from eat.experiment.settings import RUN_OPTIONS, UNSUPPORTED

YAML = """\
output_folder: !PLACEHOLDER
data_folder: DATA
save: !ref <output_folder>/save
both: !ref <data_folder>:<output_folder>
lr: 0.5
half: !ref <lr> / 2
counts: !new:collections.Counter
    a: !ref <output_folder>
    b: !ref <output_folder>/b
"""
TEXTS = (
    *("exp #2", "lr=0.1", "2026-11-25", "007", "1e3", "no", "null", "~", "*x", "&a"),
    *("!foo", "a: b", "[x", "{", "}", '"quoted"', "'", "x ", " x", "é中😀", "a\nlr: 9"),
    *("<lr>", "<", ">", "!ref <lr>", "(1, 2)", "[1, 2]", "{a: 1}", "- a", "? a", "%x"),
    *(
        "a\tb",
        "\\n",
        "$HOME",
        "~/x",
        "True",
        "-1",
        "1 + 1",
        "2 * 3",
        "x|y",
        "| x",
        "@a",
    ),
    *("`a`", ".", "..", "=", "a=b=c", "<<", "---", "...", "a\\", "\x1b[31m", "\u2028"),
    *("\udcff", "LITERAL0LITERAL", "0x10", "1_000", "12:30", ".nan", "x" * 300),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("settings") / "x.yaml"
    path.write_text(YAML)
    return path


def check_text(path, text, folder):
    """The text is the same in the values, the objects, and the recorded settings."""
    line = parse_command_line([str(path), f"--output_folder={text}"])
    config = load_config(line.path, line.overrides, line.run_opts)
    (folder / "hyperparams.yaml").write_text(config.text, encoding="utf-8")
    by_others = yaml.load(config.text.split("\ncounts")[0], yaml.SafeLoader)
    for found in (
        config.values,
        config.instantiate(),
        read_settings(folder),
        by_others,
    ):
        assert found["output_folder"] == text and found["save"] == f"{text}/save"
        assert found["both"] == f"DATA:{text}" and found["lr"] == 0.5
    counts = config.instantiate()["counts"]
    assert counts == {"a": text, "b": f"{text}/b"}


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_texts_are_kept(path, text, tmp_path):
    check_text(path, text, tmp_path)


@settings(max_examples=50)
@given(text=st.text(min_size=1, max_size=20))
@pytest.mark.slow
def test_any_text_is_kept(path, text, tmp_path_factory):
    check_text(path, text, path.parent)


def test_both_ways_to_give_an_option(path):
    for words in (["--lr", "-1e-3"], ["--lr=-1e-3"]):
        assert parse_command_line([*words, "x.yaml"]).overrides == {"lr": "-1e-3"}
    line = parse_command_line(["x.yaml", "--data_folder=--lr", "--debug", "--lr", "1"])
    assert line.overrides == {"data_folder": "--lr", "lr": "1"}
    assert line.run_opts.debug and line.run_opts.overridden_args == {"debug"}
    assert load_config(path, {"output_folder": "RUN", "lr": "1e-4"}).values["half"] == (
        0.00005
    )


def test_run_options_have_their_types():
    line = parse_command_line(
        "x.yaml --ckpt_interval_steps 5 --nonfinite_patience=7 --compile "
        "--compile_module_keys model classifier --device cpu".split()
    )
    options = line.run_opts
    assert options.ckpt_interval_steps == 5 and options.nonfinite_patience == 7
    assert options.compile and options.compile_module_keys == ["model", "classifier"]
    assert options.param_file == line.path == "x.yaml" and not line.overrides


def refusal(*words):
    with pytest.raises(ExperimentError) as caught:
        parse_command_line(words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "words",
    ["", "a.yaml b.yaml", "x.yaml --", "x.yaml --=3", "--lr 1"],
)
def test_command_lines_that_cannot_be_read(words):
    refusal(*words.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--lr", "--lr"),
        ("--lr --debug", "--lr"),
        ("--lr 1 --lr 1", "--lr"),
        ("--device cpu --device=cpu", "--device"),
        ("--debug=yes", "--debug"),
        ("--debug=", "--debug"),
        ("--precision fp8", "fp32, fp16 or bf16"),
        ("--precision=", "fp32, fp16 or bf16"),
        ("--grad_accumulation_factor 0", "--grad_accumulation_factor"),
        ("--grad_accumulation_factor 1.5", "--grad_accumulation_factor"),
        ("--max_grad_norm nan", "--max_grad_norm"),
        ("--nonfinite_patience -1", "--nonfinite_patience"),
        ("--ckpt_interval_minutes inf", "--ckpt_interval_minutes"),
        ("--ckpt_interval_minutes 5 --ckpt_interval_steps 5", "--ckpt_interval_steps"),
        ("--distributed_backend tcp", "nccl, gloo or mpi"),
        ("--compile_mode fast", "--compile_mode"),
        ("--compile_module_keys --debug", "--compile_module_keys"),
        ("--log_config none.yaml", "log_config"),
        ("-lr 1", "-lr"),
        ("\u2013\u2013lr 1", "lr"),
        *((f"--{name}", name) for name in UNSUPPORTED if name != "jit_module_keys"),
    ],
)
def test_options_that_are_refused(words, told):
    assert told in refusal("x.yaml", *words.split())


@settings(max_examples=50)
@given(
    key=st.sampled_from(sorted(RUN_OPTIONS)),
    text=st.one_of(st.text(), st.floats().map(str), st.integers().map(str)),
)
def test_any_run_option_is_accepted_or_refused(key, text):
    try:
        parse_command_line(["x.yaml", f"--{key}={text}"])
    except ExperimentError as error:
        assert str(error).isprintable() and f"--{key}" in str(error)


def test_modules_to_compile_must_exist():
    hparams = Path(__file__).parents[3] / "recipes" / "ESC50" / "hparams"
    for names, told in (("model", ""), ("mod", "mod:.*frontend, model")):
        words = [str(hparams / "pretrain_mini.yaml"), "--compile_module_keys", names]
        line = parse_command_line([*words, "--data_folder=D", "--output_folder=R"])
        if not told:
            load_config(line.path, line.overrides, line.run_opts)
            continue
        with pytest.raises(ExperimentError, match=told):
            load_config(line.path, line.overrides, line.run_opts)


def test_unknown_options_name_the_nearest_setting_or_run_option(path):
    for key, near in (("lrr", "lr?"), ("devise", "device?"), ("xyz", "--help")):
        with pytest.raises(ExperimentError, match=key) as caught:
            load_config(path, {key: "1", "output_folder": "RUN"})
        assert near in str(caught.value)


@pytest.mark.parametrize(
    "name", ["cudaa", "cpu:x", "", "meta", "cuda:99", "cuda:-1", "xla", "CPU", "cuda:"]
)
def test_devices_that_do_not_exist(name):
    with pytest.raises(ExperimentError, match="--device") as caught:
        require_device(parse_command_line(["x.yaml", f"--device={name}"]).run_opts, [])
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_a_machine_without_gpu_cannot_do():
    run_opts = parse_command_line(["x.yaml", "--device", "cuda"]).run_opts
    with pytest.raises(ExperimentError, match="--device cuda"):
        require_device(run_opts, ["bf16"])
    for words in (["x.yaml"], ["x.yaml", "--device", "cpu"]):
        run_opts = parse_command_line(words).run_opts
        require_device(run_opts, ["bf16", "fp32"])
        with pytest.raises(ExperimentError, match="fp16"):
            require_device(run_opts, ["bf16", "fp16"])


@pytest.mark.slow
def test_help(path):
    """The script's help names every setting; with a file, its values too."""
    recipe = Path(__file__).parents[3] / "recipes" / "ESC50"
    command = [sys.executable, "train.py", "hparams/pretrain_mini.yaml", "--help"]
    found = subprocess.run(command, cwd=recipe, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    for word in ("--num_frames = 256", "<total_steps>", "--device", "encoder.preset"):
        assert word in found.stdout
    assert "--label_smoothing" not in found.stdout
    every = help_text(["--help"])
    assert all(f"--{key}" in every for key in ("label_smoothing", "clones", "compile"))
    assert "--half" in help_text([str(path), "-h"])  # not in the table
