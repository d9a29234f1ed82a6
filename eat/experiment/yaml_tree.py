"""HyperPyYAML files as trees: includes, overrides, placeholders, plain values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode
from ruamel.yaml.tag import Tag

from eat.errors import ExperimentError
from eat.experiment.schema import nearest
from eat.experiment.settings import RUN_OPTIONS

MAX_BYTES, MAX_NODES = 1_000_000, 100_000
INCLUDE = "!include:"
PLACEHOLDER = "!PLACEHOLDER"


def read_tree(path: str | Path) -> CommentedMap:
    """Read a HyperPyYAML file as a tree that keeps its tags and references.

    A file whose first line after the comments is ``!include:OTHER`` is the file OTHER,
    beside it, with some values replaced. They act as overrides on the command line do:
    what refers to them follows, and a key that OTHER does not have is an error.
    HyperPyYAML has the same tag for values; at the root of a file it ignores it.

    Raises `ExperimentError` if a file does not exist or is no HyperPyYAML.
    """
    return _read_tree(Path(path), ())


def _read_tree(path: Path, including: tuple[Path, ...]) -> CommentedMap:
    if not path.is_file():
        raise ExperimentError(f"{path}: no such YAML file (see hparams/)")
    if path.resolve() in including:
        raise ExperimentError(f"{path}: includes itself (remove the include)")
    tree = parse(read_text(path), str(path))
    tag = tag_of(tree)
    if not tag.startswith(INCLUDE):
        return tree
    included = path.parent / tag.removeprefix(INCLUDE)
    full = _read_tree(included, (*including, path.resolve()))
    full.ca.comment = None  # its header
    update(full, tree, str(path))
    return full


def read_hyperpyyaml(path: str | Path) -> str:
    """Return the text of a HyperPyYAML file, the file that it includes merged in.

    For scripts that call HyperPyYAML themselves:
    ``load_hyperpyyaml(read_hyperpyyaml("pretrain_mini.yaml"), overrides)``.
    """
    return dump(read_tree(path))


def read_text(path: Path) -> str:
    """Return the text of a settings file, without a byte-order mark."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ExperimentError(f"{path}: too large for a YAML file of settings")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path}: not UTF-8 (convert it): {error}") from error


def parse(text: str, where: str) -> CommentedMap:
    """Parse HyperPyYAML text into a tree; empty text gives an empty one.

    Raises `ExperimentError` if it is no YAML mapping, has a key twice, or would be huge
    with its aliases expanded.
    """
    tree = parse_any(text, where)
    if tag_of(tree).startswith(INCLUDE) and not isinstance(tree, dict | list):
        tag, tree = tag_of(tree), CommentedMap()  # an include that replaces nothing
        tree.yaml_set_ctag(Tag(suffix=tag))
    if tree is not None and not isinstance(tree, CommentedMap):
        raise ExperimentError(f"{where}: not a YAML mapping (write key: value lines)")
    return CommentedMap() if tree is None else tree


def parse_any(text: str, where: str) -> Any:
    """Parse HyperPyYAML text of any type; errors as in :func:`parse`.

    Quoted strings are told apart from others, since HyperPyYAML reads some of the
    latter as tuples.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    try:
        tree = yaml.load(text)
        _require_small(tree, {})
    except (ValueError, RecursionError) as error:
        # Of dates such as 2026-99-99; of deep nesting, or an alias within its anchor.
        reason = str(error).splitlines()[0]
        raise ExperimentError(f"{where}: not valid YAML: {reason}") from error
    except YAMLError as error:
        reason = str(getattr(error, "problem", error)).splitlines()[0]
        twice = isinstance(error, DuplicateKeyError)
        # Of a key given twice below a tag, ruamel says that the tag is unknown.
        hint = "remove one" if twice else "check its syntax, and for keys given twice"
        raise ExperimentError(f"{where}: not valid YAML: {reason} ({hint})") from error
    return tree


def _require_small(node: object, sizes: dict[int, float]) -> float:
    """Return the number of nodes with aliases expanded; raise if they are too many."""
    if not isinstance(node, dict | list):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # until known: an alias within its anchor
        children = node.values() if isinstance(node, dict) else node
        sizes[id(node)] = 1 + sum(_require_small(child, sizes) for child in children)
    if sizes[id(node)] > MAX_NODES:
        raise ValueError(f"more than {MAX_NODES} values, or a value within itself")
    return sizes[id(node)]


def dump(tree: Mapping[str, Any]) -> str:
    """Return a tree as HyperPyYAML text."""
    yaml, stream = YAML(), StringIO()
    yaml.width = MAX_BYTES  # do not fold lines
    yaml.dump(tree, stream)
    return stream.getvalue()


def update(
    tree: CommentedMap, changes: Mapping[str, Any], where: str, options: bool = False
) -> None:
    """Replace values of a tree in place, those of nested mappings one by one.

    A mapping with a tag of its own, an object, replaces the former one as a whole.

    With `options` the changes are those of a command line, where the name of a run
    option may be meant. Raises `ExperimentError` if the tree lacks a key.
    """
    for key, value in changes.items():
        if key not in tree:
            names = [*map(str, tree), *(RUN_OPTIONS if options else ())]
            hint = nearest(str(key), names) or "see --help"
            raise ExperimentError(f"{where}: unknown setting {key} ({hint})")
        nested = isinstance(value, Mapping) and not tag_of(value)
        if nested and isinstance(tree[key], CommentedMap):
            update(tree[key], value, where)
        else:
            tree[key] = value
            tree.ca.items.pop(key, None)  # the comment was about the former value


def placeholders(tree: Mapping[str, Any]) -> list[str]:
    """Return the keys at the top of a tree that still hold a placeholder."""
    return [key for key, value in tree.items() if PLACEHOLDER in tags(value)]


def tag_of(node: object) -> str:
    """Return the tag of a node of a tree, such as ``!ref``; empty if it has none."""
    tag = getattr(node, "tag", None)
    return (tag.value if tag else None) or ""


def has_tags(node: object) -> bool:
    """Return whether a tree has tags or anchors."""
    anchor = getattr(node, "anchor", None)
    children: Iterable[object] = ()
    if isinstance(node, dict | list):
        children = node.values() if isinstance(node, dict) else node
    named = bool(tag_of(node) or (anchor and anchor.value))
    return named or any(map(has_tags, children))


def tags(node: object) -> Iterator[str]:
    """Yield the tags of a node and of all below it."""
    yield tag_of(node)
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from tags(child)


class _PlainConstructor(SafeConstructor):
    """Build plain values only: an object becomes a mapping, its tag under ``!``."""

    def construct_tagged(self, suffix: str, node: Node) -> object:
        """Return the plain value of a node that has a tag of HyperPyYAML."""
        if isinstance(node, MappingNode):
            return {"!": suffix, **self.construct_mapping(node, deep=True)}
        if isinstance(node, SequenceNode):
            return {"!": suffix, "": self.construct_sequence(node, deep=True)}
        if suffix == "tuple":  # HyperPyYAML drops this tag once it has loaded a file
            return node.value
        return f"!{suffix} {node.value}".rstrip()


_PlainConstructor.add_multi_constructor("!", _PlainConstructor.construct_tagged)


def plain_values(text: str, where: str = "settings") -> dict[str, Any]:
    """Return the values of HyperPyYAML text without references; builds no objects.

    Raises `ExperimentError` if it is no such text, or has tags of Python's own.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _PlainConstructor
    try:
        return yaml.load(text) or {}
    except YAMLError as error:
        reason = str(getattr(error, "problem", error)).splitlines()[0]
        raise ExperimentError(f"{where}: not valid YAML: {reason}") from error
