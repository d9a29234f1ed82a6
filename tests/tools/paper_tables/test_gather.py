"""Runs gathered: what is kept, no machine's folders, merged files."""

import json

import pytest

from paper_tables.gather import GatherError, gather, read_published, write_published

COMMAND = "train.py hparams/finetune.yaml --output_folder {0}/runs/{1} --data_folder "
COMMAND += "{0}/data/ESC-50 --manifest_folder {0}/runs/manifests/ESC50 --pretrained "
COMMAND += "{0}/runs/pretrain-seed1/model --opt {0}/elsewhere/x.yaml --fold 1"


def write(runs, name, record, job=True):
    folder = runs / name
    folder.mkdir(parents=True)
    results = {**record, "settings": {"data_folder": "/machine/data"}}
    (folder / "results.json").write_text(json.dumps(results))
    done = {"seconds": 7.5, "peak_mb": 3, "command": COMMAND.format(runs.parent, name)}
    if job:
        (folder / "job.json").write_text(
            json.dumps({**done, "command": done["command"].split()})
        )


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


def test_runs_moved_after_they_were_made(runs):
    moved = runs.rename(runs.parent / "copy")
    command = gather(moved)["ESC-50-fold_1-seed1"]["command"]
    assert "$OUT/ESC-50-fold_1-seed1" in command


def test_published_file_is_read_back_a_line_a_run(tmp_path, record):
    path = tmp_path / "mini_tables.json"
    assert read_published(path) == {}
    records = {"b": record(0.5), "a": record(float("nan"))}
    write_published(path, records)
    first, one, two, last = path.read_text().splitlines()
    assert one.startswith('"a": ') and two.startswith('"b": ')
    assert read_published(path)["b"] == records["b"]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_damaged_files_are_named(runs, tmp_path):
    (runs / "pretrain-seed1" / "results.json").write_text("{}")
    with pytest.raises(
        GatherError, match=r"pretrain-seed1/results.json: no 'seed'.*run"
    ):
        gather(runs)
    (runs / "pretrain-seed1" / "results.json").write_text("{")
    with pytest.raises(
        GatherError, match=r"pretrain-seed1/results.json: .*run it again"
    ):
        gather(runs)
