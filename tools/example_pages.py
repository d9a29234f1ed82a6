"""A page of the documentation for each file in ``examples/``: text, then code."""

from __future__ import annotations

import ast
import json
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SOURCES = "examples"  # folder of the repository, named at the end of each page


def example_files() -> list[Path]:
    """Return the examples: scripts and notebooks."""
    suffixes = (".py", ".sh", ".ipynb")
    return sorted(path for path in EXAMPLES.iterdir() if path.suffix in suffixes)


def page_of(path: Path) -> str:
    """Return the Markdown page of an example.

    The text is a Python script's docstring, the comment at the beginning of a shell
    script, or the Markdown cells of a notebook.
    """
    text = path.read_text(encoding="utf-8")
    pages = {".py": _of_python, ".sh": _of_shell, ".ipynb": _of_notebook}
    page = pages[path.suffix](text)
    return f"{page}\n\nThe file is `{SOURCES}/{path.name}`.\n"


def _of_python(text: str) -> str:
    module = ast.parse(text)
    end = module.body[0].end_lineno  # of the docstring
    code = "".join(text.splitlines(keepends=True)[end:])
    return f"{(ast.get_docstring(module) or '').strip()}\n\n{_fenced(code, 'python')}"


def _of_shell(text: str) -> str:
    lines = text.splitlines()[1:]  # without the interpreter
    comment = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    words = "\n".join(line[1:].removeprefix(" ") for line in lines[:comment])
    return f"{words}\n\n{_fenced(chr(10).join(lines[comment:]), 'bash')}"


def _of_notebook(text: str) -> str:
    cells = json.loads(text)["cells"]
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return "\n\n".join(
        source if kind == "markdown" else _fenced(source, "python")
        for kind, source in sources
    )


def _fenced(code: str, language: str) -> str:
    return f"```{language}\n{code.strip()}\n```"
