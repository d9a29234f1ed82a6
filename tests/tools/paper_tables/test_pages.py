"""RESULTS.md and the pages of the tables; the committed ones are up to date."""

import shutil
from pathlib import Path

import pytest

from paper_tables.pages import factory_of, notes, write_pages
from paper_tables.records import read_records
from paper_tables.tables import TABLES

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "results" / "published"


@pytest.fixture
def write(tmp_path):
    """Write all pages; returns their texts by file name."""

    shutil.copytree(PUBLISHED, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("*.md"):
        path.unlink()

    def write(records):
        write_pages(records, tmp_path, tmp_path / "RESULTS.md")
        return {path.name: path.read_text() for path in tmp_path.glob("*.md")}

    return write


def test_committed_pages_are_those_of_the_committed_records(write):
    written = write(read_records(PUBLISHED / "full_tables.json"))
    assert written.pop("RESULTS.md") == (ROOT / "RESULTS.md").read_text()
    assert written.keys() == {f"{name}.md" for name in TABLES}
    for name, text in written.items():
        assert text == (PUBLISHED / name).read_text(), name


def test_results_page_is_short_with_every_table(write):
    text = write({})["RESULTS.md"]
    assert len(text.splitlines()) <= 80
    for table in TABLES.values():
        assert f"`--{table.kind} {table.number}`" in text
    assert "$" not in text


@pytest.mark.slow
def test_pages_are_the_same_on_every_machine(write, tmp_path, monkeypatch):
    before = write({})
    monkeypatch.setattr("paper_tables.jobs.HAS_BF16", False)
    assert write({}) == before
    assert str(tmp_path) not in "".join(before.values())


def notes_of(records):
    return notes(TABLES["table2"], (factory_of(records), records))


def planned(record, name, **changed):
    jobs = TABLES["table2"].jobs(factory_of({name: {}}))
    [command] = [job.command for job in jobs if job.name == name]
    return {name: record(0.1, command=command, **changed)}


def test_notes_count_runs_clips_and_versions(record):
    first, *others = notes_of(planned(record, "pretrain-seed2"))
    assert "1 of 2 runs, seeds 2" in first and " 6 GPU hours" in first
    assert any("AudioSet: eval 600 (paper: 18,884)" in line for line in others)
    assert any("device CPU x, eat 0.2.0: 1" in line for line in others)
    assert len(others) == 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: [*c, "--lr", "0.1"], "--lr 0.1"),
        (lambda c: [w if w != "40000" else "7" for w in c], "--steps_per_epoch 7"),
        # These depend on the machine.
        (lambda c: [*c, "--precision", "fp32"], None),
        (lambda c: ["-m", "launcher", "--nproc_per_node=4", *c[:-1], "1"], None),
    ],
)
def test_notes_name_changed_settings(record, change, named):
    records = planned(record, "pretrain-seed1")
    command = records["pretrain-seed1"]["command"]
    records["pretrain-seed1"]["command"] = change(command)
    found = [line for line in notes_of(records) if "pretrain-seed1" in line]
    assert [named in line for line in found] == ([True] if named else [])
    del records["pretrain-seed1"]["command"]
    assert any("pretrain-seed1" in line for line in notes_of(records))
