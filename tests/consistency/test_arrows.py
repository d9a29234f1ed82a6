"""Imports run one way: a room of eat/ may use only the rooms listed here."""

import ast
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "eat").rglob("*.py"))

# Rooms that every other one may use.
COMMON = {"errors", "utils", "_version"}
LIBRARY = {"audio", "data", "evaluation", "interop", "model", "pretraining"}
# "eat" is the file eat/__init__.py itself.
ALLOWED = {
    "_version": set(),
    "errors": set(),
    "utils": set(),
    "audio": set(),
    "model": set(),
    "evaluation": set(),
    "report": set(),
    "pretraining": {"model"},
    "interop": {"pretraining", "model", "audio"},
    "data": {"audio"},
    "inference": {"interop", "data", "audio", "model"},
    "experiment": {"data", "model"},
    "training": LIBRARY | {"experiment"},
    "eat": {"interop", "inference"},
}
WITHOUT_SPEECHBRAIN = LIBRARY | {"inference", "report", "errors", "utils"}


def room_of(path):
    """`audio` for eat/audio/io.py, `report` for eat/report.py, `eat` for __init__."""
    name = path.relative_to(ROOT / "eat").parts[0].removesuffix(".py")
    return "eat" if name == "__init__" else name


def imported(path):
    """Full names of all that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(ROOT).parent.parts)
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def rooms_used(path):
    for name in imported(path):
        if name.split(".")[0] != "eat":
            continue
        below = name.split(".")[1:2]
        is_room = below and below[0] in {room_of(file) for file in FILES}
        yield below[0] if is_room else "eat"


def ids(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


def test_every_room_has_its_rule():
    assert {room_of(path) for path in FILES} <= ALLOWED.keys()


@pytest.mark.parametrize("path", FILES, ids=ids(FILES))
def test_only_allowed_arrows(path):
    room = room_of(path)
    not_allowed = set(rooms_used(path)) - ALLOWED[room] - COMMON - {room}
    assert not not_allowed, f"{path} (room {room}) must not import {not_allowed}"


@pytest.mark.parametrize("path", FILES, ids=ids(FILES))
def test_library_stands_on_its_own(path):
    packages = {name.split(".")[0] for name in imported(path)}
    scripts = {file.stem for file in (ROOT / "recipes").rglob("*.py")}
    scripts |= {file.stem for file in (ROOT / "tools").rglob("*.py")}
    assert not packages & (scripts | {"recipes", "tools"})
    if room_of(path) in WITHOUT_SPEECHBRAIN:
        assert "speechbrain" not in packages


HEAVY = ("speechbrain", "pandas", "matplotlib", "scipy")


@pytest.mark.parametrize(
    ("code", "absent"),
    [("import eat", ("torch", *HEAVY)), ("import eat; eat.from_pretrained", HEAVY)],
)
def test_import_eat_is_light(code, absent):
    code = f"import sys; {code}; sys.exit(any(m in sys.modules for m in {absent}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
