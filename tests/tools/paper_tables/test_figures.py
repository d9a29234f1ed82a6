"""Pictures: curves, error bars and levels are all drawn."""

import pytest
from matplotlib.figure import Figure

from eat.report.style import BLUE, VERMILION
from paper_tables.figures import Curve, plot_curves


@pytest.fixture
def drawn(monkeypatch):
    """Catch the figures that are saved."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, path: (figures.append(self), save(self, path))
    )
    return figures


def test_means_bars_dots_and_levels(tmp_path, drawn):
    ours = Curve("ours", {"1": [10.0, 14.0], "2": [20.0]}, VERMILION, "o-")
    paper = Curve("paper", {"2": [30.0], "10": [31.0]}, BLUE, "D--")
    path = tmp_path / "figure.png"
    plot_curves([paper, ours], ["1", "2", "10"], path, "x", "y", {"other": 25.0})
    assert path.stat().st_size < 100_000
    [axes] = drawn[0].axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["paper"].get_xdata()) == [1, 2]
    assert list(lines["ours"].get_ydata()) == [12, 20]
    assert lines["paper"].get_linestyle() != lines["ours"].get_linestyle()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "10"]
    dots = [list(line.get_ydata()) for line in axes.lines]
    assert [10, 14] in dots and [25, 25] in dots
    bar = axes.collections[0].get_segments()[0][:, 1]
    assert list(bar) == pytest.approx([12 - 8**0.5, 12 + 8**0.5])
