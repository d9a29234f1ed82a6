"""Files and functions are short and documented; nothing large is committed."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "eat").rglob("*.py"))
CODE = [
    *LIBRARY,
    *sorted((ROOT / "recipes").rglob("*.py")),
    *sorted((ROOT / "tools").rglob("*.py")),
]
MAX_FILE_LINES = 500
LONG_FILE_LINES = 300
MAX_LONG_FILES = 6
MAX_FUNCTION_LINES = 60
MAX_FILE_BYTES = 1024**2
MAX_DATA_BYTES = 10 * 1024**2
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".sh", ".txt"}  # code and pages
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Split, so that this file does not contain what it looks for.
UNWANTED = {
    "path of a machine": re.compile("/(work|root|home|tmp/w)/"),
    "mark of unfinished work": re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b"),
}


def ids(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def line_count(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def public(node):
    """Yield public functions, classes and methods, but none inside a function."""
    for child in node.body:
        if isinstance(child, (*FUNCTIONS, ast.ClassDef)) and child.name[0] != "_":
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


@pytest.fixture(scope="module")
def files():
    """Return what is committed, or would be with `git add .`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if answer.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in answer.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize("path", CODE, ids=ids(CODE))
def test_short(path):
    assert line_count(path) <= MAX_FILE_LINES
    for node in ast.walk(parse(path)):
        if isinstance(node, FUNCTIONS):
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{path}: {node.name}, {length} lines"


def test_few_long_files():
    long = [str(path) for path in CODE if line_count(path) > LONG_FILE_LINES]
    assert len(long) <= MAX_LONG_FILES, long


@pytest.mark.parametrize("path", LIBRARY, ids=ids(LIBRARY))
def test_documented(path):
    module = parse(path)
    assert path.stat().st_size == 0 or ast.get_docstring(module), path
    missing = [node.name for node in public(module) if not ast.get_docstring(node)]
    assert not missing, f"{path}: no docstring on {missing}"


def test_nothing_large(files):
    sizes = {path: path.stat().st_size for path in files}
    large = [str(path) for path, size in sizes.items() if size > MAX_FILE_BYTES]
    assert not large, f"over {MAX_FILE_BYTES} bytes: {large}"
    data = sum(size for path, size in sizes.items() if path.suffix not in TEXT)
    assert data < MAX_DATA_BYTES


def test_nothing_unwanted(files):
    found = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # audio and weights
            continue
        for what, pattern in UNWANTED.items():
            if match := pattern.search(text):
                line = text[: match.start()].count("\n") + 1
                found.append(f"{path.relative_to(ROOT)}:{line}: {what}")
    assert not found, "\n".join(found)
