"""The tables: means, spreads, dashes; the paper's numbers as printed."""

import pytest

from paper_tables.outcome import Outcome
from paper_tables.published import COSTS, PRINTED
from paper_tables.tables import comparisons, cost_table, score_table


def rows(markdown):
    head, _, *lines = markdown.splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in (head, *lines)]
    return [dict(zip(cells[0], line, strict=True)) for line in cells[1:]]


def outcomes(plan, table, records):
    return [Outcome(cell, records) for cell in plan.cells(table)]


def test_printed_numbers_show_both_versions():
    as20k = PRINTED["table1"]["EAT", "AS-20K"]
    assert str(as20k) == "40.3 ± 0.04 (preprint 40.2)"
    assert str(PRINTED["table1"]["EAT", "ESC-50"]) == "96.0 ± 0.03 (preprint 95.9)"
    assert str(PRINTED["figure4"]["0", "cls"]) == "≈ 38.9"


def test_empty_full_table_shows_estimates_only(study):
    found = rows(score_table("table1", outcomes(study(), "table1", {}), full=True))
    assert [row["GPU hours"] for row in found] == [
        "≈ 230 + 92",
        "≈ 230 + 6",
        "≈ 230 + 1.5",
        "≈ 230 + 4",
    ]
    assert found[1]["paper"] == "40.3 ± 0.04 (preprint 40.2)"
    assert "35.8" in found[1]["others' re-runs"]
    assert {row["best epoch"] for row in found} == {"–"}
    assert {row["n"] for row in found} == {"0"}


def test_partial_table_shows_what_there_is(study, record):
    plan = study("mini", seeds=(1, 2, 3))
    fine = {"mAP": 0.25, "epoch": 1}
    records = {
        "AS-20K-seed1": record(0.20),
        "AS-20K-seed3": record(0.24, best=fine, seconds=30.0),
        "pretrain-seed1": record(0, steps=900, clips_seen=5400, seconds=120.0),
        "AS-20K-blocks_1x1-seed2": record(0.3),
    }
    random, default, *others = rows(
        score_table("table3", outcomes(plan, "table3", records), full=False)
    )
    # (20 + 25) / 2 and 5 / sqrt(2) by hand; the second pre-training is missing.
    assert default == {
        "blocks": "2x2",
        "paper, full size": "39.5",
        "best epoch": "22.50 ± 3.54",
        "last epoch": "22.00 ± 2.83",
        "n": "2",
        "steps": "900 + 400",
        "clips seen": "5,400 + 6,400",
        "minutes": "2.0 + 1.0",
    }
    assert random["best epoch"] == "30.00" and random["n"] == "1"
    assert random["steps"] == "– + 400" and random["minutes"] == "– + 1.5"
    assert {row["best epoch"] for row in others} == {"–"}


def test_folds_are_added_up_in_time(study, record):
    cell = study("mini").cells("table1")[2]
    records = {job.name: record(0.9, steps=10) for job in cell.jobs}
    row = rows(score_table("table1", [Outcome(cell, records)], full=False))[0]
    assert row["minutes"] == "– + 7.5" and row["steps"] == "– + 10"


def test_costs_beside_the_papers(study, record):
    cell = study().cells("table2")[0]
    records = {"pretrain-seed1": record(0.1), "AS-20K-seed1": record(0.4)}
    *paper, here = rows(cost_table(Outcome(cell, records), full=True))
    assert [row["device hours"] for row in paper] == ["3600", "2304", "230"]
    assert here == {
        "model": "EAT, here",
        "epochs": "3",
        "device hours": "2",
        "devices": "2 CPU x",
        "clips/s": "50",
        "GFLOP a clip": "4.5",
        "AS-20K": "40.00",
    }
    empty = rows(cost_table(Outcome(cell, {}), full=True))[-1]
    assert empty["device hours"] == "≈ 230" and empty["AS-20K"] == "–"
    # What the caution beside the table says.
    eat, mae = COSTS[2], COSTS[1]
    ratio = eat.gflop_per_clip * eat.epochs / (mae.gflop_per_clip * mae.epochs)
    assert ratio == pytest.approx(1.6, abs=0.05)
    assert eat.gpu_hours / mae.gpu_hours == pytest.approx(0.1, abs=0.001)


def test_comparisons_in_words(study, record):
    plan = study("mini", seeds=(1, 2))
    names = {"0": "-lambda_0.0", "1": ""}
    records = {
        f"AS-20K{names[row]}{pooling}-seed{seed}": record(base + gain + noise)
        for row, base in (("0", 0.1), ("1", 0.5))
        for pooling, gain in (("", 0.02), ("-pooling_cls", 0.0))
        for seed, noise in ((1, 0.0), (2, 0.01))
    }
    cls, mean, poolings = comparisons("figure4", outcomes(plan, "figure4", records))
    assert cls.startswith("cls pooling: 2 rows") and mean.startswith("mean pooling: 2")
    assert "Highest 1 (50.50), lowest 0 (10.50): 40.00 apart" in cls
    assert "p < 0.001" in cls and cls.endswith("on: 0 below 1.")
    assert poolings.endswith("+2.00 ± 0.00, higher in 4 of 4 pairs.")
    del records["AS-20K-seed1"]  # pairs are of one seed
    *_, poolings = comparisons("figure4", outcomes(plan, "figure4", records))
    assert poolings.endswith("+2.00 ± 0.00, higher in 3 of 3 pairs.")
    assert comparisons("table1", outcomes(plan, "table1", records)) == []
    assert comparisons("table3", outcomes(plan, "table3", {})) == []
