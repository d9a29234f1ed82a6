"""The plan: which runs make a table, with which commands, at what cost."""

import re
from pathlib import Path

import pytest

from eat.experiment.yaml_tree import read_hyperpyyaml
from paper_tables.plan import BLOCKS, FOLDS, LAMBDAS, TABLES
from paper_tables.published import PRINTED
from paper_tables.schedule import in_order

ROOT = Path(__file__).parents[3]


def jobs_of(study, tables=TABLES):
    return in_order(j for t in tables for cell in study.cells(t) for j in cell.jobs)


def integer(text, key):
    return int(re.search(rf"^{key}: (\d+)", text, re.MULTILINE)[1])


def test_cells_are_those_of_the_paper(study):
    found = {
        table: [(cell.row, cell.column) for cell in study().cells(table)]
        for table in TABLES
    }
    assert found["table1"] == [
        ("EAT", t) for t in ("AS-2M", "AS-20K", "ESC-50", "SPC-2")
    ]
    assert [row for row, _ in found["table3"]] == [*BLOCKS]
    assert [row for row, _ in found["figure3"]] == [str(n) for n in range(1, 11)]
    assert len(found["figure4"]) == len(set(found["figure4"])) == 2 * len(LAMBDAS)
    for table, printed in PRINTED.items():
        assert printed.keys() <= set(found[table])


def test_tables_share_their_runs(study):
    plan = study(seeds=(1, 2))
    cells = {
        (table, cell.row, cell.column): cell
        for table in TABLES
        for cell in plan.cells(table)
    }
    common = cells["table1", "EAT", "AS-20K"].runs
    assert common == cells["table2", "EAT", "AS-20K"].runs
    assert common == cells["table3", "5x5", "AS-20K"].runs
    assert common == cells["figure4", "1", "cls"].runs
    assert [len(run) for run in cells["table1", "EAT", "ESC-50"].runs] == [5, 5]
    # Each seed has its own pre-training; only the last row's epoch differs.
    for table, rows in (("table1", ()), ("figure3", ("1", "7"))):
        starts = {run[0].needs for cell in plan.cells(table) for run in cell.runs}
        assert len(starts) == 2
        for row in rows:
            (first,), (second,) = cells[table, row, "AS-20K"].runs
            assert first.settings["pretrained"] == (
                Path("OUT/pretrain-seed1/models") / f"epoch{row}"
            )
            assert second.settings["seed"] == 2


@pytest.mark.parametrize("corpus", ["full", "mini"])
def test_a_folder_is_for_one_command(study, corpus):
    plan = study(corpus, seeds=(1, 2))
    commands = {}
    for table in TABLES:
        for cell in plan.cells(table):
            for job in in_order(cell.jobs):
                assert commands.setdefault(job.folder, job.command) == job.command
                assert job.folder == Path("OUT") / job.name
    assert len({tuple(command) for command in commands.values()}) == len(commands)


@pytest.mark.parametrize("corpus", ["full", "mini"])
def test_yaml_files_have_the_keys(study, corpus):
    for job in jobs_of(study(corpus)):
        text = read_hyperpyyaml(ROOT / job.recipe / "hparams" / job.yaml)
        keys = set(re.findall(r"^(\w+):", text, re.MULTILINE))
        assert {"output_folder", *job.settings} <= keys, job.name


def test_steps_are_those_of_the_yaml_files(study):
    for job in jobs_of(study()):
        text = read_hyperpyyaml(ROOT / job.recipe / "hparams" / job.yaml)
        epochs, steps = (
            integer(text, key) for key in ("number_of_epochs", "steps_per_epoch")
        )
        # Epochs are whole: 144 of 2,083 steps stand for 300,000.
        assert job.steps == pytest.approx(epochs * steps, rel=1e-3), job.name


def test_gpus_share_the_batch(study):
    one, four = (study(processes=n).pretraining(1) for n in (1, 4))
    assert one.settings["grad_accumulation_factor"] == 4
    assert four.settings["grad_accumulation_factor"] == 1
    assert one.command[0] == "train.py" and "--nproc_per_node=4" in four.command
    assert "--seed 1 " in " ".join(four.command)
    tuning = study(processes=4).finetuning("AS-20K", four, 1)
    assert tuning.command[0] == "train.py" and tuning.needs == (four,)


def test_mini_runs_are_told_apart_by_their_settings(study):
    plan = study("mini")
    start = plan.pretraining(1, blocks="6x4,5x5,8x3")
    assert start.name == "pretrain-blocks_6x4+5x5+8x3-seed1"
    assert "--blocks 6x4,5x5,8x3 --device cpu" in " ".join(start.command)
    tuning = plan.finetuning("AS-20K", start, 1, pooling="cls")
    assert tuning.name == "AS-20K-blocks_6x4+5x5+8x3-pooling_cls-seed1"
    assert tuning.gpu_hours is None


def test_estimated_hours_follow_from_operations(study):
    plan = study()
    hours = {job.name.removesuffix("-seed1"): job.gpu_hours for job in jobs_of(plan)}
    operations = 400_000 * 48 * 1083
    for task, steps, batch, gflop in (
        ("AS-2M", 300_000, 96, 290),
        ("AS-20K", 40_000, 48, 290),
        ("ESC-50-fold_1", 4_000, 48, 140),
        ("SPC-2", 40_000, 256, 36),
    ):
        exact = 230 * steps * batch * gflop / operations
        assert hours[task] == pytest.approx(exact, rel=0.05)
    # The pre-training counts once.
    total = sum(job.gpu_hours for job in jobs_of(plan, ["table1"]))
    assert total == pytest.approx(230 + 92 + 6 + 5 * 0.3 + 4)


def test_value_is_the_mean_of_the_folds(study):
    *_, folds, speech = study().cells("table1")
    assert len(folds.runs[0]) == len(FOLDS)
    results = [{"best": {"accuracy": x}, "last": {"accuracy": 0.1}} for x in (0.5, 0.9)]
    assert folds.value(results, "best") == pytest.approx(0.7)
    assert folds.value(results, "last") == pytest.approx(0.1)
    # Where a test set stands apart, the best epoch counts there.
    result = {**results[0], "test": {"accuracy": 0.45}}
    assert speech.value([result], "best") == 0.45
    assert speech.value([result], "last") == 0.1
