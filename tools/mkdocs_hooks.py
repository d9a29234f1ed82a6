"""Hooks of mkdocs.yml: results, pages of the examples, and the tables of settings.

In a page, a picture or a result has its path in the repository, so that it is shown
there as well: ``../results/published/quickstart.png``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from eat.experiment.help import markdown_tables
from example_pages import example_files, page_of

TABLES = "<!-- tables of eat/experiment/settings.py -->"
PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pictures, the study's results and a page for each example to the site."""
    for path in sorted([*PUBLISHED.glob("*.png"), *PUBLISHED.glob("evidence/*")]):
        name = f"published/{path.relative_to(PUBLISHED).as_posix()}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    for path in example_files():
        name = f"examples/{path.stem}.md"
        files.append(File.generated(config, name, content=page_of(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point a page at the results on the site, and insert the tables of settings."""
    markdown = markdown.replace(TABLES, markdown_tables())
    return markdown.replace("](../results/published/", "](published/")
