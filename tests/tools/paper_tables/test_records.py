"""Records: what is kept, portable commands, statistics of cells."""

import json

import pytest

from paper_tables.records import (
    CellStatistics,
    RecordError,
    gather,
    mean_std,
    read_records,
    write_records,
)
from paper_tables.tables import TABLES

COMMAND = "train.py hparams/finetune.yaml --output_folder {0}/runs/{1} --data_folder "
COMMAND += "{0}/data/ESC-50 --manifest_folder {0}/runs/manifests/ESC50 --pretrained "
COMMAND += "{0}/runs/pretrain-seed1/model --opt {0}/elsewhere/x.yaml --fold 1"


def write(runs, name, record, job=True):
    folder = runs / name
    folder.mkdir(parents=True)
    results = {**record, "settings": {"data_folder": "/machine/data"}}
    (folder / "results.json").write_text(json.dumps(results))
    if job:
        command = COMMAND.format(runs.parent, name).split()
        job = {"seconds": 7.5, "peak_mb": 3, "command": command}
        (folder / "job.json").write_text(json.dumps(job))


@pytest.fixture
def runs(tmp_path, record):
    folder = tmp_path / "runs"
    write(folder, "ESC-50-fold_1-seed1", record(0.9))
    write(folder, "pretrain-seed1", record(0.2), job=False)
    (folder / "unfinished").mkdir()
    return folder


def test_gather_keeps_numbers_and_portable_commands(runs, record):
    found = gather(runs)
    assert found.keys() == {"ESC-50-fold_1-seed1", "pretrain-seed1"}
    tuning = found["ESC-50-fold_1-seed1"]
    assert tuning.items() >= {**record(0.9), "seconds": 7.5, "peak_mb": 3}.items()
    assert " ".join(tuning["command"]) == (
        "train.py hparams/finetune.yaml --output_folder $OUT/ESC-50-fold_1-seed1 "
        "--data_folder $ESC50 --manifest_folder $OUT/manifests/ESC50 "
        "--pretrained $OUT/pretrain-seed1/model --opt x.yaml --fold 1"
    )
    assert "command" not in found["pretrain-seed1"]
    assert str(runs.parent) not in json.dumps(found)
    assert "machine" not in json.dumps(found)


def test_moved_runs_have_portable_commands(runs):
    moved = runs.rename(runs.parent / "copy")
    command = gather(moved)["ESC-50-fold_1-seed1"]["command"]
    assert "$OUT/ESC-50-fold_1-seed1" in command


def test_records_are_written_one_per_line(tmp_path, record):
    path = tmp_path / "full_tables.json"
    assert read_records(path) == {}
    records = {"b": record(0.5), "a": record(float("nan"))}
    write_records(path, records)
    _, one, two, _ = path.read_text().splitlines()
    assert one.startswith('"a": ') and two.startswith('"b": ')
    assert read_records(path)["b"] == records["b"]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("text", ["{}", "{"])
def test_errors_name_the_file(runs, text):
    path = runs / "pretrain-seed1" / "results.json"
    path.write_text(text)
    with pytest.raises(RecordError) as error:
        gather(runs)
    assert str(path) in str(error.value)


def test_only_seeds_with_all_folds_count(make_factory, record):
    cell = TABLES["table1"].cells(make_factory(seeds=(1, 2)))[2]
    assert [len(run) for run in cell.runs] == [5, 5]
    records = {job.name: record(0.9) for job in cell.runs[0]}
    records |= {job.name: record(0.7) for job in cell.runs[1]}
    both = CellStatistics.of(cell, records)
    assert both.n == 2 and both.best == pytest.approx([90, 70])
    del records[cell.runs[0][3].name]
    assert CellStatistics.of(cell, records).last == pytest.approx([70])
    assert CellStatistics.of(cell, {}).n == 0


def test_folds_are_averaged_and_the_best_epoch_is_that_of_the_test_set(
    make_factory, record
):
    *_, folds, speech = TABLES["table1"].cells(make_factory())
    jobs = folds.runs[0]
    records = {job.name: record(0.1 * n) for n, job in enumerate(jobs)}
    assert CellStatistics.of(folds, records).best == pytest.approx([20])
    [job] = speech.runs[0]
    records = {job.name: record(0.5, test={"accuracy": 0.45})}
    found = CellStatistics.of(speech, records)
    assert found.best == pytest.approx([45]) and found.last == pytest.approx([50])


def test_mean_std():
    assert mean_std([20.0, 25.0]) == "22.50 ± 3.54"
    assert mean_std([25.0]) == "25.00"
