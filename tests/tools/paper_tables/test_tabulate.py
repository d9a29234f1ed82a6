"""RESULTS.md as a whole."""

import pytest

from paper_tables.tabulate import Chapter, document


@pytest.fixture
def text(tmp_path):
    def make(full=None, mini=None):
        records = {"full": full or {}, "mini": mini or {}}
        return document(records, tmp_path, tmp_path / "RESULTS.md")

    return make


def test_empty_document_has_every_table_command_and_total(text, tmp_path):
    found = text()
    assert found.count("### Table 3") == found.count("### Figure 4") == 2
    assert "python tools/reproduce.py table3 --audioset DIR --seeds 1" in found
    assert "python tools/reproduce.py figure4 --corpus mini --seeds 1" in found
    # 14 pre-trainings, each counted once; 92 + 24 x 6 + 5 x 0.3 + 4 for fine-tuning.
    jobs = Chapter("full", {}).jobs()
    assert sum(job.name.startswith("pretrain") for job in jobs) == 14
    hours = sum(job.gpu_hours for job in jobs)
    tunings = sum(job.name.startswith("AS-20K") for job in jobs)
    assert hours == pytest.approx(14 * 230 + 92 + tunings * 6 + 1.5 + 4)
    assert (
        f"0 of {len(jobs)} runs made (seed 1); the rest takes some {hours:,.0f}"
        in found
    )
    assert found.count("What to suspect") == 5 and "![" not in found
    assert not list(tmp_path.iterdir())  # nothing of ours to draw


def test_mini_chapter_shows_runs_pictures_and_conclusions(text, tmp_path, record):
    records = {f"AS-20K-epoch1-seed{s}": record(0.1 * s) for s in (1, 2, 4)}
    (tmp_path / "mini_conclusions.md").write_text("What one may conclude.\n")
    found = text(mini=records)
    full, mini = found.split("## Mini corpora")
    assert "20.00" not in full and "23.33 ± 15.28" in mini
    assert "What one may conclude." in mini and "conclude" not in full
    assert "3 of 12 runs made (seeds 1, 2, 4)." in mini.split("### Figure 3")[1]
    assert "![Figure 3: epochs of pre-training](figure3_mini.png)" in mini
    assert [path.name for path in tmp_path.glob("*.png")] == ["figure3_mini.png"]
    assert "eval 600 of 18,884" in mini


def test_the_same_on_every_machine(text, tmp_path, monkeypatch):
    before = text()
    monkeypatch.setattr("paper_tables.jobs.HAS_BF16", False)
    assert text() == before
    assert str(tmp_path) not in before
