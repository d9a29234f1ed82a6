"""Every YAML file of a recipe says what it is for, is used whole, and loads."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.run_opts import RunOptions

ROOT = Path(__file__).parents[2]
YAMLS = sorted((ROOT / "recipes").glob("*/hparams/*.yaml"))
MINI = [path for path in YAMLS if path.stem.endswith("_mini")]
RUN_OPTIONS = {option.name for option in fields(RunOptions)} | {"help"}

# Keys that a mini file need not repeat: the paper's lambda is defined by the official
# code's sum over 12 x 16 rows; mini files state the weight between two means itself.
ONLY_IN_FULL = {"lambda"}


def ids(paths):
    return [path.relative_to(ROOT / "recipes").as_posix() for path in paths]


each_yaml = pytest.mark.parametrize("path", YAMLS, ids=ids(YAMLS))
each_mini = pytest.mark.parametrize("path", MINI, ids=ids(MINI))


def text_of(path):
    return path.read_text(encoding="utf-8")


def header(path):
    """The comment at the top, as one line."""
    lines = text_of(path).split("\n\n")[0].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines)


def keys(path):
    return re.findall(r"^([A-Za-z_]\w*):", text_of(path), flags=re.MULTILINE)


def test_there_are_recipes():
    assert YAMLS and MINI


@each_yaml
def test_header_says_what_and_how(path):
    told = header(path)
    for word in ("Reproduces", "Command", "Hardware"):
        assert re.search(rf"\b{word} ", told), f"{path}: its header has no {word}"
    assert f"train.py hparams/{path.name} " in told, f"{path}: the command is another's"


@each_yaml
def test_no_dead_key(path):
    text = text_of(path)
    code = [path.parents[1] / "train.py", *(ROOT / "eat" / "training").glob("*.py")]
    code = "\n".join(text_of(file) for file in code)
    dead = [
        key
        for key in keys(path)
        if key not in RUN_OPTIONS
        and not re.search(rf"<{key}>", text)
        and not re.search(rf'(hparams|settings)(\.|\["){key}\b', code, re.I)
    ]
    assert not dead, f"{path}: nothing reads {dead}"


@each_yaml
def test_keys_are_safe_on_the_command_line(path):
    names = keys(path)
    assert len(names) == len(set(names)), f"{path}: a key twice"
    swallowed = {
        key: option
        for key in names
        for option in RUN_OPTIONS - {key}
        if option.startswith(key) and key not in RUN_OPTIONS
    }
    assert not swallowed, f"{path}: argparse takes --key for the option {swallowed}"


@each_mini
def test_mini_has_the_keys_it_claims(path):
    claim = re.search(r"keys are those of (\w+\.yaml)", header(path))
    assert claim, f"{path}: the header must name the file whose keys it has"
    full = path.with_name(claim.group(1))
    assert set(keys(full)) - set(keys(path)) <= ONLY_IN_FULL
    assert set(keys(path)) <= set(keys(full))


@each_yaml
def test_loads(path, tmp_path):
    open_keys = re.findall(r"^(\w+): !PLACEHOLDER", text_of(path), flags=re.MULTILINE)
    assert {"data_folder", "output_folder"} <= set(open_keys)
    given = {key: str(tmp_path / key) for key in open_keys}
    hparams = load_hyperpyyaml(text_of(path), yaml.safe_dump(given))
    assert set(keys(path)) <= hparams.keys()
    assert "frontend" in hparams["modules"]
    assert hparams["total_steps"] >= hparams["warmup_steps"]
