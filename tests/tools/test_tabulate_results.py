"""tools/tabulate_results.py: gathers runs, merges records, writes pages."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "tabulate_results.py"
spec = importlib.util.spec_from_file_location("tabulate_results", SCRIPT)
tabulate_results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tabulate_results)
QUICKSTART = ROOT / "results" / "published" / "quickstart_seed0.json"


def write_run(runs, name, score):
    metrics = {"mAP": score, "epoch": 1}
    cost = {"device": "CPU", "device_hours": 1.0, "devices": 1, "clips_per_second": 1.0}
    results = {"seed": 1, "steps": 4, "clips_seen": 8, "last": metrics, "best": metrics}
    results |= {"cost": cost, "data": None, "versions": {"eat": "0.2.0"}}
    folder = runs / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))


@pytest.fixture
def run(tmp_path):
    """Run the script; returns the page of Table 3."""
    published = tmp_path / "published"
    published.mkdir()
    (published / QUICKSTART.name).write_text(QUICKSTART.read_text())
    places = ["--published", str(published), "--output", str(tmp_path / "RESULTS.md")]

    def run(*options):
        tabulate_results.main([*map(str, options), *places])
        assert (tmp_path / "RESULTS.md").is_file()
        return (published / "table3.md").read_text()

    return run


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    for seed in (1, 2):
        write_run(folder, f"AS-20K-blocks_3x3-seed{seed}", 0.1 * seed)
    return folder


@pytest.mark.slow
def test_records_are_merged_with_earlier_ones(tmp_path, run, runs):
    options = ("--runs", runs)
    assert "| 3x3 | 39.9 | 15.00 ± 7.07 |" in run(*options)
    # One is gone, one updated, one new.
    (runs / "AS-20K-blocks_3x3-seed1").rename(tmp_path / "gone")
    write_run(runs, "AS-20K-blocks_3x3-seed2", 0.3)
    write_run(runs, "AS-20K-blocks_4x4-seed1", 0.4)
    page = run(*options)
    assert "| 3x3 | 39.9 | 20.00 ± 14.14 |" in page and "| 4x4 | 40.0 | 40.00 |" in page
    path = tmp_path / "published" / "full_tables.json"
    before = path.read_text()
    assert len(json.loads(before)) == 3
    # Without runs the records are kept.
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("--runs", empty) == page
    assert path.read_text() == before


def test_a_missing_folder_is_named(run, capsys):
    with pytest.raises(SystemExit):
        run("--runs", "nowhere")
    assert "nowhere" in capsys.readouterr().err


def test_a_corrupt_file_is_named_and_nothing_written(tmp_path, run, runs):
    path = runs / "AS-20K-blocks_3x3-seed1" / "results.json"
    path.write_text("{")
    with pytest.raises(SystemExit, match=str(path)):
        run("--runs", runs)
    assert not (tmp_path / "RESULTS.md").exists()


@pytest.mark.parametrize(
    "content", [b"[]", b'{"a": 3}', b'{"a": {"last": 3}}', b"\xff", b"[" * 10_000]
)
def test_published_records_that_are_none_are_named(tmp_path, run, content):
    path = tmp_path / "published" / "full_tables.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=f"^error: {path}[^\n]*$"):
        run()
