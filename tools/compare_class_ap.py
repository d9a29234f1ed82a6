"""Compare two files of per-class average precision, ours or the official ones.

    python tools/compare_class_ap.py RUN/class_ap.txt EAT-base_epoch10_AS20K.txt

The official files are in the ``results`` folder of github.com/cwx-worst-one/EAT.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from eat.data.prepare import abbreviate
from eat.errors import exit_on_error, printable
from eat.evaluation.per_class import read_class_ap
from eat.report.markdown import markdown_table
from eat.utils.arguments import integer


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", type=Path, metavar="A.txt")
    parser.add_argument("b", type=Path, metavar="B.txt")
    parser.add_argument(
        "--top", type=integer(1), default=20, help="classes in each table"
    )
    return parser.parse_args(arguments)


def overview(both: pd.DataFrame) -> str:
    """Summarize the classes in both files: mAP, mean difference, rank correlation."""
    valued = both.dropna()
    text = f"{len(both)} classes in both files"
    if without := [name for name in both.index if name not in valued.index]:
        text += f"; excluded, without a value in one or both: {'; '.join(without)}"
    if valued.empty:
        return text
    means, ranks = valued.mean(), valued["A"].corr(valued["B"], method="spearman")
    return (
        f"{text}\nmAP {means['A']:.4f} in A, {means['B']:.4f} in B; mean difference "
        f"B - A {means['B'] - means['A']:+.4f}, mean absolute difference "
        f"{(valued['B'] - valued['A']).abs().mean():.4f}, rank correlation {ranks:.3f}"
    )


def extremes(both: pd.DataFrame, top: int) -> str:
    """Return tables of the classes that are better in B, and of those better in A."""
    valued = both.dropna().assign(difference=lambda t: t["B"] - t["A"])
    ordered = valued.sort_values("difference", kind="stable")
    sides = {
        "Better in B": ordered[ordered["difference"] > 0].iloc[::-1],
        "Better in A": ordered[ordered["difference"] < 0],
    }
    parts = []
    for title, classes in sides.items():
        shown = classes.head(top).rename_axis("class").reset_index()
        rows: list[Any] = shown.to_dict("records")
        parts.append(f"{title}: {len(classes)} classes")
        if rows:
            parts.append(markdown_table(rows, ["class", "A", "B", "difference"]))
    return "\n\n".join(parts)


@exit_on_error()
def main(arguments: list[str] | None = None) -> None:
    """Read both files, print the comparison."""
    options = read_options(arguments)
    files = {"A": read_class_ap(options.a), "B": read_class_ap(options.b)}
    table = pd.DataFrame(files, dtype=float)
    for name, path in (("A", options.a), ("B", options.b)):
        values = pd.Series(files[name], dtype=float)
        summary = f"{len(values)} classes, mAP {values.mean():.4f}"
        where = printable(f"{name}: {path}")
        print(f"{where}: {summary}, {values.isna().sum()} without a value")
    for name, other in ("AB", "BA"):
        if missing := [key for key in files[name] if key not in files[other]]:
            print(f"Only in {name}, {len(missing)} classes: {abbreviate(missing)}")
    both = table.loc[[key for key in files["A"] if key in files["B"]]]
    print(overview(both), extremes(both, options.top), sep="\n\n")


if __name__ == "__main__":
    main()
