"""Recipes: YAML files say what they are for, have no unused key, and load.

The scripts have little code in common: what two of them repeat belongs in the library.
"""

import ast
import re
from dataclasses import fields
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path

import pytest
import torch
from speechbrain.utils.run_opts import RunOptions

from eat.experiment.config import load_config
from eat.experiment.yaml_tree import (
    INCLUDE,
    placeholders,
    plain_values,
    read_hyperpyyaml,
    read_tree,
)

ROOT = Path(__file__).parents[2]
YAMLS = sorted((ROOT / "recipes").glob("*/hparams/*.yaml"))
SHORT = [path for path in YAMLS if INCLUDE in path.read_text(encoding="utf-8")]
MINI = [path for path in YAMLS if path.stem.endswith("_mini")]
SCRIPTS = sorted((ROOT / "recipes").glob("*/train.py"))
MIN_RUN, MAX_REPEATED = 4, 40  # lines
RUN_OPTIONS = {option.name for option in fields(RunOptions)} | {"help"}


def ids(paths):
    return [path.relative_to(ROOT / "recipes").as_posix() for path in paths]


each_yaml = pytest.mark.parametrize("path", YAMLS, ids=ids(YAMLS))
each_short = pytest.mark.parametrize("path", SHORT, ids=ids(SHORT))


def text_of(path):
    return path.read_text(encoding="utf-8")


def header(path):
    """Return the comment at the top, as one line."""
    lines = text_of(path).split("\n\n")[0].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines)


def leaves(tree, prefix=""):
    """Yield the path and value of everything that is not a mapping."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def test_mini_files_are_short():
    assert YAMLS and MINI and set(MINI) <= set(SHORT)


@each_yaml
def test_header_says_what_and_how(path):
    for word in ("Reproduces", "Command", "Hardware"):
        assert re.search(rf"\b{word} ", header(path)), (
            f"{path}: no {word} in its header"
        )
    assert f"train.py hparams/{path.name} " in header(path)


@each_yaml
def test_no_unused_key(path):
    text = read_hyperpyyaml(path)
    code = [path.parents[1] / "train.py", *(ROOT / "eat" / "training").glob("*.py")]
    code = "\n".join(text_of(file) for file in code)
    unused = [
        key
        for key in read_tree(path)
        if key not in RUN_OPTIONS
        and not re.search(rf"<{key}>", text)
        and not re.search(rf'(hparams|settings)(\.|\["){key}\b', code, re.I)
    ]
    assert not unused, f"{path}: nothing reads {unused}"


@each_yaml
def test_keys_are_safe_on_the_command_line(path):
    abbreviations = {
        key: option
        for key in read_tree(path)
        for option in RUN_OPTIONS - {key}
        if option.startswith(key) and key not in RUN_OPTIONS
    }
    assert not abbreviations, f"{path}: argparse reads --key as {abbreviations}"


@each_short
def test_short_files_state_only_what_differs(path):
    changes = dict(leaves(plain_values(text_of(path))))
    included = path.parent / changes.pop("!").removeprefix(INCLUDE[1:])
    full = dict(leaves(plain_values(read_hyperpyyaml(included))))
    same = [key for key, value in changes.items() if full[key] == value]
    assert not same, f"{path}: repeats {same} of {included}"


@each_yaml
def test_loads(path, tmp_path):
    missing = placeholders(read_tree(path))
    assert {"data_folder", "output_folder"} <= set(missing)
    config = load_config(path, {key: str(tmp_path / key) for key in missing})
    with torch.device("meta"):  # networks without their weights
        hparams = config.instantiate()
    assert hparams.keys() == config.values.keys()
    assert "frontend" in hparams["modules"]
    assert hparams["total_steps"] >= hparams["warmup_steps"]


def code_lines(path):
    """Return the lines of a script without blank lines, comments and imports."""
    text = text_of(path)
    imports = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for number in range(node.lineno, node.end_lineno + 1)
    }
    lines = enumerate(map(str.strip, text.splitlines()), start=1)
    return [x for n, x in lines if x and x[0] != "#" and n not in imports]


@pytest.mark.parametrize("pair", combinations(SCRIPTS, 2), ids=ids)
def test_scripts_repeat_little(pair):
    matcher = SequenceMatcher(None, *map(code_lines, pair), autojunk=False)
    runs = [match.size for match in matcher.get_matching_blocks()]
    assert sum(size for size in runs if size >= MIN_RUN) < MAX_REPEATED
