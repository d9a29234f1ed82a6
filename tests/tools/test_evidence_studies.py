"""The study's plan: rows, seeds, and the commands that run them."""

import pytest

from eat.experiment.config import load_config
from evidence.studies import EPOCH_STEPS, JobFactory, read_studies, runs_of

STUDIES = read_studies()
ROWS = {row.name: row for study in STUDIES.values() for row in study.rows}


@pytest.fixture
def factory(tmp_path):
    return JobFactory(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_settings_are_accepted(row, factory):
    job = factory.pretraining(row, 1)
    config = load_config(
        job.recipe / "hparams" / job.yaml,
        {"output_folder": "RUN", **{k: str(v) for k, v in job.settings.items()}},
    )
    assert config.values["steps_per_epoch"] == EPOCH_STEPS
    assert config.values["total_steps"] == row.steps


def test_the_default_weights_the_utterance_loss_as_the_paper_does(factory):
    job = factory.pretraining(ROWS["default"], 1)
    folders = {"output_folder": "RUN", "data_folder": "CORPUS"}
    values = load_config(job.recipe / "hparams" / job.yaml, folders).values
    assert values["lambda"] == 1
    assert values["utterance_weight"] == values["batch_size"] * values["clones"]


def test_a_name_is_one_setting():
    settings = {}
    for study in STUDIES.values():
        for row in study.rows:
            assert settings.setdefault(row.name, row) == row


def test_first_seeds_of_all_rows_run_first():
    runs = runs_of([STUDIES["blocks"], STUDIES["curve"]], None)
    seeds = [seed for row, seed in runs if row.name != "default"]
    assert seeds == sorted(seeds) and {1, 2, 3} == set(seeds)
    assert [seed for row, seed in runs if row.name == "default"] == [1, 2, 3, 4, 5]
    assert len(runs) == len({row.run_name(seed) for row, seed in runs})
    assert {seed for _, seed in runs_of(STUDIES.values(), 1)} == {1}


def test_every_second_model_and_the_last_are_probed():
    assert ROWS["1x1"].measured(3) == () and ROWS["1x1"].measured(4) == ("student",)
    assert ROWS["healthy"].measured(1) == () and ROWS["healthy"].measured(3)
    assert all(row.measured(row.steps // EPOCH_STEPS) for row in ROWS.values())
    assert ROWS["default"].measured(3) == ("student",)
    assert ROWS["default"].measured(4) == ("student", "teacher")
