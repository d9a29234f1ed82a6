"""Numbers from papers and independent reproductions, read from ``data/*.csv``."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

DATA = Path(__file__).with_name("data")
DASH = "–"


@cache
def read_data(name: str) -> list[dict[str, str]]:
    """Read the rows of a file in ``data``, sources as Markdown links."""
    with open(DATA / f"{name}.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if name != "sources":
        urls = {row["source"]: row["url"] for row in read_data("sources")}
        for row in rows:
            if source := row["source"]:
                row["source"] = f"[{source}]({urls[source]})"
    return rows


def reported(table: str) -> dict[tuple[str, str], str]:
    """Return a table's numbers as text, by row and column.

    A number that was derived or read off a plot has a ``≈``; one that
    differs in the preprint has both values.
    """
    found: dict[tuple[str, str], str] = {}
    for row in read_data("reported"):
        if row["table"] != table:
            continue
        place, value = (row["row"], row["column"]), row["value"]
        if row["note"] == "preprint":
            found[place] += f" (preprint {value})"
        elif row["note"] in ("", "counted here"):
            found[place] = value + (f" ± {row['std']}" if row["std"] else "")
        else:
            found[place] = f"≈ {value}"
    return found


def reported_curve(table: str, column: str) -> dict[str, list[float]]:
    """Return the numbers of a column by row, each in a list of one."""
    return {
        row["row"]: [float(row["value"])]
        for row in read_data("reported")
        if (row["table"], row["column"]) == (table, column)
    }


def reproductions(system: str, task: str) -> str:
    """Return the scores that others measured, as text with their sources."""
    scores = [
        f"{row['reproduced']} ({row['source']})"
        for row in read_data("reproductions")
        if (row["system"], row["task"]) == (system, task)
        and row["reproduced"][0].isdigit()
    ]
    return "; ".join(scores) or DASH
