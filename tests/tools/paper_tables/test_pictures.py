"""Pictures: small files, every curve there, the paper's in place."""

import pytest
from matplotlib.figure import Figure

from eat.report.style import BLUE, VERMILION
from paper_tables.outcome import Outcome
from paper_tables.pictures import Curve, Panel, plot_panels
from paper_tables.tabulate import panels


@pytest.fixture
def drawn(monkeypatch):
    """Catch the figures that are saved."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, path: (figures.append(self), save(self, path))
    )
    return figures


def test_means_bars_dots_and_levels(tmp_path, drawn):
    ours = Curve("here", {"1": [10.0, 14.0], "2": [20.0]}, VERMILION, ours=True)
    paper = Curve("paper", {"2": [30.0], "10": [31.0]}, BLUE, ours=False)
    path = tmp_path / "figure.png"
    panel = Panel("Panel", [paper, ours], ["1", "2", "10"], {"other": 25.0})
    plot_panels([panel, panel], path, "x", "y")
    assert path.stat().st_size < 200_000
    axes, _ = drawn[0].axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["paper"].get_xdata()) == [1, 2]
    assert list(lines["here"].get_ydata()) == [12, 20]
    assert lines["paper"].get_linestyle() != lines["here"].get_linestyle()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "10"]
    dots = [list(line.get_ydata()) for line in axes.lines]
    assert [10, 14] in dots and [25, 25] in dots
    bar = axes.collections[0].get_segments()[0][:, 1]
    assert list(bar) == pytest.approx([12 - 8**0.5, 12 + 8**0.5])


def test_panels_of_either_size(study, record):
    cells = study("mini", seeds=(1, 2)).cells("figure3")
    records = {f"AS-20K-epoch2-seed{s}": record(0.1 * s) for s in (1, 2)}
    outcomes = [Outcome(cell, records) for cell in cells]
    paper, here = panels("figure3", outcomes, full=False)
    assert paper.ticks == [str(n) for n in range(1, 11)] and here.ticks == [
        "1",
        "2",
        "3",
    ]
    assert paper.curves[0].points["4"] == [38.1]
    assert here.curves[0].points == {"2": pytest.approx([10, 20])}
    (both,) = panels("figure3", outcomes, full=True)
    assert [curve.ours for curve in both.curves] == [False, True]
