"""Tables and figures: their cells, shared runs, and Markdown."""

from pathlib import Path

import pytest

from paper_tables.reference import read_data, reported, reported_curve
from paper_tables.tables import TABLES


def rows(markdown):
    head, _, *lines = markdown.splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in (head, *lines)]
    return [dict(zip(cells[0], line, strict=True)) for line in cells[1:]]


@pytest.fixture
def results(make_factory):
    def make(records=None, seeds=(1,)):
        return make_factory("full", seeds), records or {}

    return make


def test_cells_are_those_of_the_paper(make_factory):
    found = {
        name: [(cell.row, cell.column) for cell in table.cells(make_factory())]
        for name, table in TABLES.items()
    }
    tasks = ["AS-2M", "AS-20K", "ESC-50", "SPC-2"]
    assert found["table1"] == [("EAT", task) for task in tasks]
    assert len(found["table3"]) == 9 and found["table3"][-1][0] == "6x4,5x5,8x3"
    assert [row for row, _ in found["figure3"]] == [str(n) for n in range(1, 11)]
    assert len(found["figure4"]) == len(set(found["figure4"])) == 12
    for name in ("table3", "figure3", "figure4"):
        assert reported(name).keys() <= set(found[name])
    for name, table in TABLES.items():
        assert table.highlights.keys() <= reported(name).keys()
        mini = {(cell.row, cell.column) for cell in table.cells(make_factory("mini"))}
        assert mini <= set(found[name])


def test_tables_share_runs(make_factory):
    factory = make_factory(seeds=(1, 2))
    cells = {
        (name, cell.row, cell.column): cell
        for name, table in TABLES.items()
        for cell in table.cells(factory)
    }
    common = cells["table1", "EAT", "AS-20K"].runs
    assert common == cells["table2", "EAT", "AS-20K"].runs
    assert common == cells["table3", "5x5", "AS-20K"].runs
    assert common == cells["figure4", "1", "cls"].runs
    for name in ("table1", "figure3"):
        starts = {
            run[0].needs for cell in TABLES[name].cells(factory) for run in cell.runs
        }
        assert len(starts) == 2  # one pre-training per seed
    (first,), (second,) = cells["figure3", "7", "AS-20K"].runs
    assert first.settings["pretrained"] == Path("OUT/pretrain-seed1/models/epoch7")
    assert second.settings["seed"] == 2
    # 14 pre-trainings, each counted once.
    jobs = {job for table in TABLES.values() for job in table.jobs(factory)}
    assert sum(job.name.startswith("pretrain") for job in jobs) == 2 * 14
    hours = sum(job.gpu_hours for job in TABLES["table1"].jobs(make_factory()))
    assert hours == pytest.approx(230 + 92 + 6 + 5 * 0.3 + 4)


def test_reported_numbers():
    assert reported("table1")["EAT", "AS-20K"] == "40.3 ± 0.04 (preprint 40.2)"
    assert reported("table1")["EAT", "AS-2M"] == "48.6 ± 0.05"
    assert reported("figure4")["0", "cls"] == "≈ 38.9"
    assert reported_curve("figure3", "AS-20K")["10"] == [40.2]
    assert all(row["source"] for row in read_data("reproductions"))


def test_scores_show_what_has_been_run(results, record):
    fine = {"mAP": 0.25, "epoch": 1}
    records = {
        "AS-20K-seed1": record(0.20),
        "AS-20K-seed3": record(0.24, best=fine),
        "AS-20K-blocks_1x1-seed2": record(0.3),
    }
    table = TABLES["table3"]
    found = rows(table.scores(results(records, seeds=(1, 2, 3))))
    by_blocks = {row["blocks"]: row for row in found}
    assert by_blocks["5x5"] == {
        "blocks": "5x5",
        "paper": "40.2",
        "best epoch": "22.50 ± 3.54",
        "last epoch": "22.00 ± 2.83",
        "n": "2",
    }
    assert by_blocks["1x1"]["best epoch"] == "30.00" and by_blocks["1x1"]["n"] == "1"
    assert by_blocks["2x2"]["best epoch"] == "–"
    assert rows(table.scores(results()))[0] == {"blocks": "1x1", "paper": "37.8"}


def test_cost_of_pretraining(results, record):
    records = {"pretrain-seed1": record(0.1), "AS-20K-seed1": record(0.4)}
    table, place = TABLES["table2"], ("EAT", "GPU hours")
    *paper, ours = rows(table.scores(results(records)))
    assert [row["GPU hours"] for row in paper] == ["3600", "2304", "230"]
    numbers = {key: ours[key] for key in ours if key != "model"}
    assert numbers == {
        "epochs": "10",
        "GPU hours": "2",
        "hardware": "2 CPU x",
        "clips/s": "50",
        "GFLOP per clip": "4.5",
        "AS-20K": "40.00",
    }
    assert table.status(results(records), place) == "2"
    assert "236" in table.status(results(), place)
    assert len(rows(table.scores(results()))) == 3


def test_status(results, record):
    table, place = TABLES["table1"], ("EAT", "AS-20K")
    records = {f"AS-20K-seed{s}": record(0.1 * s) for s in (1, 3)}
    status = table.status(results(records, seeds=(1, 2, 3)), place)
    assert status.startswith("20.00 ± 14.14") and "n = 2" in status


def test_curves(results, record):
    records = {f"AS-20K-epoch2-seed{s}": record(0.1 * s) for s in (1, 2)}
    paper, ours = TABLES["figure3"].curves(results(records, seeds=(1, 2)))
    assert paper.points["4"] == [38.1]
    assert ours.points == {"2": pytest.approx([10, 20])}
