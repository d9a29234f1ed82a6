"""Imports run one way: a part of eat/ may import only the parts listed here."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "eat").rglob("*.py"))

BASE = {"_version", "errors"}
COMMON = BASE | {"utils"}  # what every other part may import
LIBRARY = {"audio", "data", "evaluation", "interop", "model", "pretraining"}
# "eat" is the file eat/__init__.py itself.
ALLOWED = {
    "_version": set(),
    "errors": set(),
    "utils": BASE,
    "audio": COMMON,
    "model": COMMON,
    "evaluation": COMMON,
    "report": COMMON | (LIBRARY - {"data"}) | {"experiment"},
    "experiment": COMMON,
    "pretraining": COMMON | {"model"},
    "interop": COMMON | {"pretraining", "model", "audio"},
    "data": COMMON | {"audio"},
    "inference": COMMON | {"interop", "data", "audio", "model"},
    "training": COMMON | LIBRARY | {"experiment"},
    "adapters": COMMON | {"inference", "audio"},
    "hf": COMMON | {"interop", "model", "audio"},
    "commands": COMMON | LIBRARY | {"inference", "report"},
    "cli": BASE | {"commands"},
    "eat": COMMON | {"interop", "inference"},
}
WITHOUT_SPEECHBRAIN = LIBRARY | COMMON | {"inference", "report"}


def part_of(path):
    """Return `audio` for eat/audio/io.py, `eat` for eat/__init__.py."""
    name = path.relative_to(ROOT / "eat").parts[0].removesuffix(".py")
    return "eat" if name == "__init__" else name


def imported(path):
    """Yield the full names of everything that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(ROOT).parent.parts)
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def parts_used(path):
    for name in imported(path):
        if name.split(".")[0] != "eat":
            continue
        below = name.split(".")[1:2]
        is_part = below and below[0] in {part_of(file) for file in FILES}
        yield below[0] if is_part else "eat"


def files_used(path):
    """Yield the files of eat/ that must be complete before this one is imported."""
    for name in imported(path):
        base = ROOT.joinpath(*name.split("."))
        for file in (base.with_suffix(".py"), base.parent.with_suffix(".py")):
            if file in FILES:
                yield file


def ids(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


def test_every_part_has_its_rule_and_there_is_no_cycle():
    assert {part_of(path) for path in FILES} <= ALLOWED.keys()
    TopologicalSorter(ALLOWED).prepare()  # raises CycleError


def test_files_do_not_import_each_other():
    TopologicalSorter({path: set(files_used(path)) for path in FILES}).prepare()


@pytest.mark.parametrize("path", FILES, ids=ids(FILES))
def test_only_allowed_imports(path):
    part = part_of(path)
    not_allowed = set(parts_used(path)) - ALLOWED[part] - {part}
    assert not not_allowed, f"{path} ({part}) must not import {not_allowed}"


@pytest.mark.parametrize("path", FILES, ids=ids(FILES))
def test_library_does_not_need_recipes_or_tools(path):
    packages = {name.split(".")[0] for name in imported(path)}
    scripts = {file.stem for file in (ROOT / "recipes").rglob("*.py")}
    scripts |= {file.stem for file in (ROOT / "tools").rglob("*.py")}
    assert not packages & (scripts | {"recipes", "tools"})
    if part_of(path) in WITHOUT_SPEECHBRAIN:
        assert "speechbrain" not in packages


HEAVY = ("speechbrain", "pandas", "matplotlib", "scipy")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "absent"),
    [("import eat", ("torch", *HEAVY)), ("import eat; eat.from_pretrained", HEAVY)],
)
def test_import_eat_is_light(code, absent):
    code = f"import sys; {code}; sys.exit(any(m in sys.modules for m in {absent}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
