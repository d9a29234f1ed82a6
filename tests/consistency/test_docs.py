"""The pages name only files, links, commands and options that exist."""

import re
import shlex
from dataclasses import fields
from glob import glob
from pathlib import Path

import pytest
import yaml
from speechbrain.utils.run_opts import RunOptions

from eat.cli import make_parser
from example_pages import example_files

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.parent for path in ROOT.glob("recipes/*/train.py"))
PAGES = [
    *(ROOT / name for name in ("README.md", "RESULTS.md", "CONTRIBUTING.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("recipes/*/README.md")),
    *sorted(ROOT.glob("results/published/*.md")),
    ROOT / "tools" / "bank" / "README.md",
]
TOP_LEVEL = {"eat", "recipes", "tools", "tests", "docs", "results", ".ci", ".github"}
RUN_OPTIONS = {option.name for option in fields(RunOptions)} | {"help"}
# Options of programs that are not ours.
FOREIGN = {
    "array",  # sbatch
    "hook-type",  # pre-commit
    "shm-size",  # docker
    *("max-restarts", "nnodes", "nproc_per_node", "standalone"),  # torchrun
    *("rdzv_backend", "rdzv_endpoint", "rdzv_id"),
}
LAUNCHERS = ("python", ".venv/bin/python", "torchrun", "bash", "sbatch")


def ids(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


each_page = pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))


def text_of(path):
    return path.read_text(encoding="utf-8")


def blocks(text):
    """The fenced code blocks, continued lines joined."""
    found = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(r"\\\n\s*", "", block) for block in found]


def prose(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def code_spans(text):
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(text))]


def anchors(path):
    """Anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", prose(text_of(path)), flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings)
    return {re.sub(r"\s+", "-", heading.strip()) for heading in plain}


def commands(page):
    """Yield (folder, words) of each command in a page; the folder None if not said."""
    home = page.parent if page.parent in RECIPES else None
    for block in blocks(text_of(page)):
        folder = home
        for line in block.splitlines():
            # The runs of a table are in parentheses: (cd recipes/X && python ...)
            for part in re.split(r"&&|\|", line.strip().strip("()")):
                words = shlex.split(part, comments=True)
                if words[:1] == ["cd"]:
                    folder = ROOT / words[1]
                elif words:
                    yield folder, words
    for span in code_spans(text_of(page)):
        if span.startswith(LAUNCHERS) and " " in span:
            yield None, shlex.split(span)


def script_of(folder, words):
    """The script that a command runs; None for commands of other programs."""
    if words[0].endswith("run.sh") and words[0].startswith("."):
        named = words[0]
    elif words[0] in LAUNCHERS and "-m" not in words and "-c" not in words:
        named = next((w for w in words if w.endswith((".py", ".sh", ".ci/run"))), None)
    else:
        return None
    if named is None:
        return None
    folders = [folder] if folder else [ROOT, *RECIPES]
    for candidate in folders:
        if (candidate / named).is_file():
            return (candidate / named).resolve()
    raise AssertionError(f"{' '.join(words)}: no such script in {folders}")


def keys(path):
    """Top-level keys of a YAML file and of the one it includes."""
    text = text_of(path)
    own = set(re.findall(r"^([A-Za-z_]\w*):", text, flags=re.MULTILINE))
    for other in re.findall(r"^!include:\s*(\S+)", text, flags=re.MULTILINE):
        own |= keys(path.parent / other)
    return own


def options_of(script, words):
    """Options that a script accepts."""
    if script.name == "train.py":
        named = next((word for word in words if word.endswith(".yaml")), None)
        files = [script.parent / named] if named else script.parent.glob("hparams/*")
        return RUN_OPTIONS.union(*map(keys, files))
    if script.suffix == ".sbatch":
        return options_of(script.with_name("train.py"), ["hparams/pretrain.yaml"])
    if script.name == "run.sh":
        found = re.search(r"^options='(.*)'", text_of(script), flags=re.MULTILINE)
        passed_on = options_of(ROOT / "tools" / "reproduce.py", [])
        return {*found.group(1).split(), "table", "figure", *passed_on}
    if script.suffix == ".sh":
        return set(re.findall(r"--([a-z_0-9]+)", text_of(script)))
    parts = [script]
    if script.name == "run.py":  # of the modules beside it
        parts = script.parent.glob("*.py")
    text = "".join(map(text_of, parts))
    named = set(re.findall(r'"--([a-z_0-9]+)"', text))
    if 'f"--{' in text:  # options made from names in a loop
        named |= set(re.findall(r'"(\w+)"', text))
    if re.search(r"\b(add_part_options|run_command_line)\(", text):
        named |= {"part", "merge"}
    return named


@pytest.fixture(scope="module")
def all_options():
    """Every option of every command here."""
    scripts = [*ROOT.glob("tools/**/*.py"), *ROOT.glob("tools/*.sh")]
    scripts += [*ROOT.glob("recipes/*/*.py"), *ROOT.glob("recipes/*/run.sh")]
    scripts += ROOT.glob("eat/commands/*.py")
    return FOREIGN.union(*(options_of(script, []) for script in scripts))


def test_the_pages_are_found():
    assert len(PAGES) > 15 and all(page.is_file() for page in PAGES)


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text_of(page))):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name) if name else page
        assert path.exists(), f"{target}: no such file"
        if anchor:
            assert anchor in anchors(path), f"{target}: no such heading"


@each_page
def test_named_paths_exist(page):
    for span in code_spans(text_of(page)):
        top = span.split("/")[0]
        written = top == "results" and not span.startswith("results/published")
        if "/" not in span or " " in span or top not in TOP_LEVEL or written:
            continue
        if not re.search(r"[<$]", span):
            assert glob(str(ROOT / span)), f"{span}: no such file"


@each_page
def test_named_tests_exist(page):
    tests = "".join(map(text_of, ROOT.glob("tests/**/test_*.py")))
    for span in code_spans(text_of(page)):
        if re.fullmatch(r"test_\w+", span):
            assert f"def {span}(" in tests, f"{span}: no such test"


@each_page
def test_commands_name_scripts_and_their_options(page):
    for folder, words in commands(page):
        script = script_of(folder, words)
        if script is None or not script.is_relative_to(ROOT):
            continue
        named = {w.removeprefix("--").split("=")[0] for w in words if w[:2] == "--"}
        unknown = named - options_of(script, words) - FOREIGN
        assert not unknown, f"{' '.join(words)}: no option {unknown}"
        for word in words:
            if word.startswith("hparams/"):
                assert (script.parent / word).is_file(), f"{word}: no such file"


@each_page
def test_eat_commands_parse(page):
    for _, words in commands(page):
        if words[0] != "eat" or "..." in words:
            continue
        end = words.index(">") if ">" in words else None
        make_parser(words[1]).parse_args(words[1:end])  # else it exits


@each_page
def test_options_exist(page, all_options):
    for span in code_spans(text_of(page)):
        for option in re.findall(r"(?<!\S)--([a-z][\w-]*)", span):
            assert option in all_options, f"{span}: no command has this option"


def test_the_site_has_every_page():
    nav = re.findall(r"([\w/]+)\.md$", text_of(ROOT / "mkdocs.yml"), flags=re.MULTILINE)
    pages = [path.stem for path in ROOT.glob("docs/*.md")]
    pages += [f"examples/{path.stem}" for path in example_files()]
    assert sorted(nav) == sorted(pages)


def test_the_citation_parses():
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    paper = citation["preferred-citation"]
    assert paper["year"] == 2024 and len(paper["authors"]) == 5


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/**/*.yml")), ids=str)
def test_workflows_and_templates_parse(path):
    assert isinstance(yaml.safe_load(text_of(path)), dict)
