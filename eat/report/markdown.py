"""Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def _cell(value: Any) -> str:
    """Format a value: three decimals for a float, a dash if missing."""
    if value is None or value != value:  # NaN differs from itself
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value).replace("|", r"\|")


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return columns of the rows as a Markdown table, numbers right-aligned."""
    numeric = [
        all(isinstance(row.get(c, 0.0), int | float | None) for row in rows)
        for c in columns
    ]
    lines = [list(columns), ["--:" if n else ":--" for n in numeric]]
    lines += [[_cell(row.get(c)) for c in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
