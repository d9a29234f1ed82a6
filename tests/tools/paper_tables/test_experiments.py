"""Jobs of the experiments: names, commands, settings, cost."""

import re
from pathlib import Path

import pytest

from eat.experiment.yaml_tree import read_hyperpyyaml
from paper_tables.tables import TABLES

ROOT = Path(__file__).parents[3]


def all_jobs(factory):
    return [job for table in TABLES.values() for job in table.jobs(factory)]


def text_of(job):
    return read_hyperpyyaml(ROOT / job.recipe / "hparams" / job.yaml)


def integer(text, key):
    return int(re.search(rf"^{key}: (\d+)", text, re.MULTILINE)[1])


@pytest.mark.parametrize("scale", ["full", "mini"])
def test_each_folder_has_one_command(make_factory, scale):
    commands = {}
    for job in all_jobs(make_factory(scale, seeds=(1, 2))):
        assert job.folder == Path("OUT") / job.name
        assert commands.setdefault(job.folder, job.command) == job.command
    assert len({tuple(command) for command in commands.values()}) == len(commands)


@pytest.mark.parametrize("scale", ["full", "mini"])
@pytest.mark.slow
def test_settings_are_keys_of_the_yaml_files(make_factory, scale):
    for job in all_jobs(make_factory(scale)):
        keys = set(re.findall(r"^(\w+):", text_of(job), re.MULTILINE))
        assert {"output_folder", *job.settings} <= keys, job.name


@pytest.mark.slow
def test_steps_equal_those_of_the_yaml_files(make_factory):
    for job in all_jobs(make_factory()):
        text = text_of(job)
        steps = integer(text, "number_of_epochs") * integer(text, "steps_per_epoch")
        # Epochs are whole: 144 of 2,083 steps for 300,000.
        assert job.steps == pytest.approx(steps, rel=1e-3), job.name


def test_names_match_existing_result_files(make_factory):
    factory = make_factory("mini", seeds=(2,))
    start = factory.pretraining(2, blocks="6x4,5x5,8x3")
    assert start.name == "pretrain-blocks_6x4+5x5+8x3-seed2"
    tuning = factory.finetuning("AS-20K", start, 2)
    assert tuning.name == "AS-20K-blocks_6x4+5x5+8x3-seed2"
    start = factory.pretraining(2, **{"lambda": 0.1})
    tuning = factory.finetuning("AS-20K", start, 2, pooling="cls")
    assert tuning.name == "AS-20K-lambda_0.1-pooling_cls-seed2"
    epoch = factory.finetuning("AS-20K", factory.pretraining(2), 2, "models/epoch3")
    assert epoch.name == "AS-20K-epoch3-seed2"
    assert epoch.settings["pretrained"] == Path("OUT/pretrain-seed2/models/epoch3")


def test_batch_size_is_independent_of_the_number_of_gpus(make_factory):
    one, four = (make_factory(processes=n).pretraining(1) for n in (1, 4))
    assert one.settings["grad_accumulation_factor"] == 4
    assert four.settings["grad_accumulation_factor"] == 1
    assert one.command[0] == "train.py" and "--nproc_per_node=4" in four.command


def test_gpu_hours_follow_from_the_papers(make_factory):
    tasks = make_factory().scale.tasks
    operations = 400_000 * 48 * 1083  # of 230 hours
    for task, steps, batch, gflop in (
        ("AS-2M", 300_000, 96, 290),
        ("AS-20K", 40_000, 48, 290),
        ("ESC-50", 4_000, 48, 140),
        ("SPC-2", 40_000, 256, 36),
    ):
        hours = 230 * steps * batch * gflop / operations
        assert tasks[task]["gpu_hours"] == pytest.approx(hours, rel=0.05)
