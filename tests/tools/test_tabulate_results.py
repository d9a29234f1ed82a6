"""tools/tabulate_results.py: gathers, merges, writes."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "tabulate_results.py"
spec = importlib.util.spec_from_file_location("tabulate_results", SCRIPT)
tabulate_results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tabulate_results)


def write_run(runs, name, score):
    figures = {"mAP": score, "epoch": 1}
    cost = {"device": "CPU", "device_hours": 1.0, "devices": 1, "clips_per_second": 1.0}
    results = {"seed": 1, "steps": 4, "clips_seen": 8, "last": figures, "best": figures}
    results |= {"cost": cost, "data": None, "versions": {"eat": "0.1.0"}}
    folder = runs / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def run(tmp_path, *options):
    places = ["--published", str(tmp_path / "published")]
    places += ["--output", str(tmp_path / "RESULTS.md")]
    tabulate_results.main([*options, *places])
    return (tmp_path / "RESULTS.md").read_text()


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    for seed in (1, 2):
        write_run(folder, f"AS-20K-blocks_3x3-seed{seed}", 0.1 * seed)
    return folder


def test_runs_are_merged_with_those_gathered_before(tmp_path, runs, capsys):
    options = ("--corpus", "mini", "--runs", str(runs))
    assert "| 3x3 | 39.9 | 15.00 ± 7.07 |" in run(tmp_path, *options)
    assert "mini: 2 runs in" in capsys.readouterr().out
    # One is gone, one refreshed, one new.
    (runs / "AS-20K-blocks_3x3-seed1").rename(tmp_path / "gone")
    write_run(runs, "AS-20K-blocks_3x3-seed2", 0.3)
    write_run(runs, "AS-20K-blocks_4x4-seed1", 0.4)
    text = run(tmp_path, *options)
    assert "| 3x3 | 39.9 | 20.00 ± 14.14 |" in text and "| 4x4 | 40.0 | 40.00 |" in text
    assert "3 in all" in capsys.readouterr().out
    path = tmp_path / "published" / "mini_tables.json"
    assert len(json.loads(path.read_text())) == 3
    # Runs of the other size leave it alone.
    before = path.read_text()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(tmp_path, "--corpus", "full", "--runs", str(empty)) == text
    assert path.read_text() == before


def test_errors_are_one_line(tmp_path, runs, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "--runs", str(runs))
    assert "--runs needs --corpus" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path, "--corpus", "mini", "--runs", str(tmp_path / "none"))
    assert "none: no such folder" in capsys.readouterr().err
    (runs / "AS-20K-blocks_3x3-seed1" / "results.json").write_text("{")
    with pytest.raises(
        SystemExit, match="^tabulate_results: .*3x3-seed1/results.json: "
    ):
        run(tmp_path, "--corpus", "mini", "--runs", str(runs))
    assert not (tmp_path / "RESULTS.md").exists()
