"""docs/evidence.md, from templates in ``text`` and the study's result files."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eat.utils.files import write_text
from evidence import figures, tables
from evidence.quoting import Fields, Numbers, NumberTemplate
from evidence.studies import Study, read_studies

TEXT = Path(__file__).with_name("text")
README_COMMENTS = ("<!-- main results of the study -->", "<!-- end of them -->")
FAILURES = "failures"  # the part whose logs docs/troubleshooting.md shows


def write_page(results: Path, page: Path) -> None:
    """Write the page and, beside the result files, its pictures."""
    studies, numbers = read_studies(), Numbers.read(results)
    sections = [section(study, numbers, results) for study in studies.values()]
    fields = {
        "main": main_lines(numbers),
        "studies": "\n".join(sections),
        "labels": tables.label_table(numbers) or tables.missing_labels(),
        "layer_decay": tables.layer_decay_table(numbers) or "Part of the same command.",
        "baselines": tables.baseline_table(numbers),
        "cost": tables.cost_table(studies, numbers),
    }
    write_text(page, fill(TEXT / "evidence.md", numbers, fields))


def main_lines(numbers: Numbers) -> str:
    """Return the main results as a list, for several pages."""
    items = fill(TEXT / "main.md", numbers, {}).removeprefix("- ").split("\n- ")
    # The length of a line depends on its numbers.
    style: dict[str, Any] = {"subsequent_indent": "  ", "break_on_hyphens": False}
    return "\n".join(
        textwrap.fill(f"- {' '.join(item.split())}", 88, **style) for item in items
    )


def update_readme(results: Path, readme: Path) -> None:
    """Write the main results into the README, between its two comments."""
    text = readme.read_text(encoding="utf-8")
    start, end = (text.index(comment) for comment in README_COMMENTS)
    lines = main_lines(Numbers.read(results))
    start += len(README_COMMENTS[0])
    write_text(readme, f"{text[:start]}\n\n{lines}\n\n{text[end:]}")


def fill(path: Path, numbers: Numbers, fields: Mapping[str, str]) -> str:
    """Fill a template with fields and numbers, see :mod:`evidence.quoting`."""
    template = NumberTemplate(path.read_text(encoding="utf-8"))
    return template.substitute(Fields(fields, numbers))


def section(study: Study, numbers: Numbers, results: Path) -> str:
    """Return the section of a part; draws its pictures.

    As long as there is nothing to compare, it has only the first paragraph.
    """
    text = (TEXT / f"{study.name}.md").read_text(encoding="utf-8")
    names = tables.names_of(study)
    pictures: dict[str, str] = {}
    if sum(name in numbers.rows for name in names) < min(2, len(names)):
        text = text.split("\n\n")[0] + "\n\n${missing}\n"
    elif study.name == FAILURES:
        _draw_failures(study, numbers, results)
    elif study.name == "curve":
        pictures = _curve_pictures(numbers, results)
    else:
        figures.plot_study(study, numbers, results / f"{study.name}.png")
        pictures = {"figure": _picture(study.title, results / f"{study.name}.png")}
    fields = {
        "table": tables.study_table(study, numbers),
        "missing": tables.missing(study, numbers),
        **pictures,
    }
    body = NumberTemplate(text).substitute(Fields(fields, numbers))
    return f"## {study.title}\n\n{body.strip()}\n"


def _curve_pictures(numbers: Numbers, results: Path) -> dict[str, str]:
    curve, layers = results / "curve.png", results / "layers.png"
    figures.plot_learning_curve(numbers, curve)
    figures.plot_layers(numbers, layers)
    return {
        "figure": _picture("Probes of student and teacher over steps", curve),
        "layers": _picture("Linear probe of each layer", layers),
    }


def _draw_failures(study: Study, numbers: Numbers, results: Path) -> None:
    """Draw the log of each failure beside that of the healthy run."""
    for row in study.rows:
        if row.name in numbers.rows and row.name != study.reference:
            path = results / f"{FAILURES}_{row.run_name(1).removesuffix('-seed1')}.png"
            figures.plot_log(numbers, row.name, study.reference, path)


def _picture(title: str, path: Path) -> str:
    return f"![{title}]({tables.FILES}/{path.name})"
