"""tools/reproduce.py: its list can be run, finished runs are skipped, errors exit."""

import importlib.util
import os
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from speechbrain.utils.run_opts import RunOptions

from eat.experiment.yaml_tree import read_hyperpyyaml
from paper_tables import runner
from paper_tables.tables import TABLES

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location(
    "reproduce", ROOT / "tools" / "reproduce.py"
)
reproduce = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reproduce)
RUN_OPTIONS = {option.name for option in fields(RunOptions)}
TABLE2 = ("--table", "2")

TRAIN = """
import json, sys
from pathlib import Path
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
folder = Path(options["--output_folder"])
if "bad" in options["--data_folder"]:
    print("something before")
    sys.exit("the reason")
with open(folder / "calls", "a") as file: file.write("x")
last = {"mAP": 0.25, "epoch": 1}
(folder / "results.json").write_text(json.dumps({"last": last, "best": last}))
"""


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Call the command line; restores the environment that it sets for its children."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.02)
    output = ["--output", str(tmp_path / "out")]

    def call(*options):
        argv = ["reproduce.py", *map(str, options), *output]
        monkeypatch.setattr(sys, "argv", argv)
        reproduce.main()

    return call


def commands(printed):
    """The recipe folder and the words of every command."""
    lines = [line for line in printed.splitlines() if not line.startswith("#")]
    for line in lines:
        change, folder, then, python, *words = shlex.split(line)
        assert (change, then, python) == ("cd", "&&", "python")
        yield Path(folder), words


@pytest.mark.parametrize("corpus", ["full", "mini"])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.slow
def test_listed_commands_can_be_run(call, capsys, tmp_path, corpus, table):
    option = (f"--{table.kind}", table.number)
    call(*option, "--corpus", corpus, "--list", "--seeds", 2)
    listed = list(commands(capsys.readouterr().out))
    assert listed and not (tmp_path / "out").exists()
    outputs = set()
    for folder, words in listed:
        script, settings = words[:2]
        assert folder.is_absolute() and (folder / script).is_file()
        text = read_hyperpyyaml(folder / settings)
        known = set(re.findall(r"^(\w+):", text, re.MULTILINE)) | RUN_OPTIONS
        given = {word[2:] for word in words[2:] if word.startswith("--")}
        assert given <= known
        placeholders = set(re.findall(r"^(\w+): !PLACEHOLDER", text, re.MULTILINE))
        assert placeholders <= given
        outputs.add(words[words.index("--output_folder") + 1])
        # The model it starts from comes from a command above.
        if "--pretrained" in words:
            model = words[words.index("--pretrained") + 1]
            assert any(model.startswith(f"{output}/") for output in outputs)
    assert len(outputs) == len(listed)


def test_list_with_four_gpus_and_a_space_in_a_folder(call, capsys):
    call(*TABLE2, "--list", "--ngpu", 4, "--audioset", "my data")
    (_, pretrain), (_, finetune) = commands(capsys.readouterr().out)
    assert "--nproc_per_node=4" in pretrain and "--nproc_per_node=4" not in finetune
    assert pretrain[pretrain.index("--grad_accumulation_factor") + 1] == "1"
    assert str(Path("my data").absolute()) in pretrain


def test_several_tables_share_runs(call, capsys):
    call("--table", 1, 2, "--figure", 3, "--list")
    names = re.findall(r"^# ([\w.+-]+): ", capsys.readouterr().out, re.MULTILINE)
    assert len(names) == len(set(names)) == 9 + 10


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    """A tree whose recipe trains at once or fails, in a folder with a space."""
    recipe = tmp_path / "a tree" / "recipes" / "AudioSet"
    recipe.mkdir(parents=True)
    (recipe / "train.py").write_text(TRAIN)
    monkeypatch.setattr(reproduce, "ROOT", tmp_path / "a tree")
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_finished_runs_are_skipped(call, capsys, fakes):
    options = [*TABLE2, "--corpus", "mini", "--audioset", fakes / "good"]
    for _ in range(2):
        call(*options)
    calls = [path.read_text() for path in (fakes / "out").glob("*/calls")]
    assert calls == ["x", "x"]  # pre-training and fine-tuning
    capsys.readouterr()
    call(*options, "--list")
    printed = capsys.readouterr().out
    assert "2 runs, 0 to do" in printed
    [first, _] = commands(printed)
    assert first[0] == fakes / "a tree" / "recipes" / "AudioSet"


def test_a_failed_run_exits_with_its_reason(call, fakes):
    with pytest.raises(SystemExit) as error:
        call(*TABLE2, "--corpus", "mini", "--audioset", fakes / "bad")
    assert "\n" not in error.value.code
    first, second = error.value.code.split("; ")
    log = fakes / "out" / "pretrain-seed1" / "output.txt"
    assert "pretrain-seed1" in first and "the reason" in first and str(log) in first
    assert "AS-20K-seed1" in second
    assert "something before" in log.read_text()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([*TABLE2], "--audioset"),
        (["--table", "1", "--audioset", "."], "--esc50"),
        ([*TABLE2, "--audioset", "nowhere"], "nowhere"),
    ],
)
def test_missing_data_is_named_before_anything_runs(call, fakes, options, named):
    with pytest.raises(SystemExit, match=named):
        call(*options)
    assert not (fakes / "out").exists()


@pytest.mark.parametrize("options", [[], ["--table", "4"], [*TABLE2, "--seeds", "0"]])
def test_wrong_options_exit_with_2(call, options):
    with pytest.raises(SystemExit) as error:
        call(*options)
    assert error.value.code == 2
