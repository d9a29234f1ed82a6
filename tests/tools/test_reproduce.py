"""The command that runs a table: what it lists can be typed, what fails is told."""

import importlib.util
import os
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from speechbrain.utils.run_opts import RunOptions

from paper_tables.plan import TABLES

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location(
    "reproduce", ROOT / "tools" / "reproduce.py"
)
reproduce = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reproduce)
RUN_OPTIONS = {option.name for option in fields(RunOptions)}

TRAIN = """
import json, sys
from pathlib import Path
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
folder = Path(options["--output_folder"])
if "bad" in options["--data_folder"]:
    print("something before")
    sys.exit("error: AudioSet: no clips in it (unpack it)")
with open(folder / "calls", "a") as file: file.write("x")
last = {"mAP": 0.25, "epoch": 1}
(folder / "results.json").write_text(json.dumps({"last": last, "best": last}))
"""


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Call the command line; puts back what it sets for its children."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
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
@pytest.mark.parametrize("table", TABLES)
def test_list_is_of_runnable_commands(call, capsys, tmp_path, corpus, table):
    call(table, "--corpus", corpus, "--list", "--seeds", 2)
    listed = list(commands(capsys.readouterr().out))
    assert listed and not (tmp_path / "out").exists()
    outputs = set()
    for folder, words in listed:
        script, settings = words[:2]
        assert folder.is_absolute() and (folder / script).is_file()
        text = (folder / settings).read_text()
        known = set(re.findall(r"^(\w+):", text, re.MULTILINE)) | RUN_OPTIONS
        given = {word[2:] for word in words[2:] if word.startswith("--")}
        assert given <= known
        placeholders = set(re.findall(r"^(\w+): !PLACEHOLDER", text, re.MULTILINE))
        assert placeholders <= given
        outputs.add(words[words.index("--output_folder") + 1])
        # What it begins with was made by a command above it.
        if "--pretrained" in words:
            model = words[words.index("--pretrained") + 1]
            assert any(model.startswith(f"{output}/") for output in outputs)
    assert len(outputs) == len(listed)


def test_list_of_four_gpus_and_of_odd_folders(call, capsys):
    call("table2", "--list", "--ngpu", 4, "--audioset", "my data")
    (_, pretrain), (_, finetune) = commands(capsys.readouterr().out)
    assert "--nproc_per_node=4" in pretrain and "--nproc_per_node=4" not in finetune
    assert pretrain[pretrain.index("--grad_accumulation_factor") + 1] == "1"
    assert str(Path("my data").absolute()) in pretrain


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    """A tree whose recipe is trained at once, or fails; in a folder with a space."""
    recipe = tmp_path / "a tree" / "recipes" / "AudioSet"
    recipe.mkdir(parents=True)
    (recipe / "train.py").write_text(TRAIN)
    monkeypatch.setattr(reproduce, "ROOT", tmp_path / "a tree")
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_runs_once(call, capsys, fakes):
    options = ["table2", "--corpus", "mini", "--audioset", fakes / "good"]
    for _ in range(2):
        call(*options)
        assert "All done" in capsys.readouterr().out
    calls = [path.read_text() for path in (fakes / "out").glob("*/calls")]
    assert calls == ["x", "x"]  # pre-training and fine-tuning
    call(*options, "--list")
    told = capsys.readouterr().out
    assert "to do\n" not in told.rsplit("#", 1)[0] and "2 runs, 0 to do" in told
    [first, _] = commands(told)
    assert first[0] == fakes / "a tree" / "recipes" / "AudioSet"


def test_failed_run_is_told_with_its_reason(call, capsys, fakes):
    with pytest.raises(SystemExit) as error:
        call("table2", "--corpus", "mini", "--audioset", fakes / "bad")
    first, second = error.value.code.splitlines()
    assert first.startswith("reproduce: pretrain-seed1 failed: error: AudioSet: no cl")
    assert "not run, it needs one that failed" in second
    log = fakes / "out" / "pretrain-seed1" / "output.txt"
    assert str(log) in first and "something before" in log.read_text()
    assert "All done" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["table2"], "^reproduce: --audioset is missing"),
        (["table1", "--audioset", "."], "^reproduce: --esc50 is missing"),
        (["table2", "--seeds", "0"], "^2$"),  # argparse has said why
    ],
)
def test_what_is_missing_is_named(call, fakes, options, fault):
    with pytest.raises(SystemExit, match=fault):
        call(*options)
    assert not (fakes / "out").exists()


def test_missing_folder_is_told_before_anything_runs(call, fakes):
    with pytest.raises(SystemExit, match="nowhere: no such folder, AudioSet is needed"):
        call("table2", "--audioset", fakes / "nowhere")
    assert not (fakes / "out").exists()
