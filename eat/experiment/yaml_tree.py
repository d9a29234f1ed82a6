"""HyperPyYAML files as trees: includes, overrides, placeholders, plain values."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from eat.errors import ExperimentError

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
    path = Path(path)
    if not path.is_file():
        raise ExperimentError(f"{path}: no such YAML file (see hparams/)")
    tree = parse(path.read_text(encoding="utf-8"), str(path))
    tag = tag_of(tree)
    if not tag.startswith(INCLUDE):
        return tree
    full = read_tree(path.parent / tag.removeprefix(INCLUDE))
    full.ca.comment = None  # its header
    update(full, tree, str(path))
    return full


def read_hyperpyyaml(path: str | Path) -> str:
    """Return the text of a HyperPyYAML file, the file that it includes merged in.

    For scripts that call HyperPyYAML themselves:
    ``load_hyperpyyaml(read_hyperpyyaml("pretrain_mini.yaml"), overrides)``.
    """
    return dump(read_tree(path))


def parse(text: str, where: str) -> CommentedMap:
    """Parse HyperPyYAML text into a tree; empty text gives an empty one.

    Raises `ExperimentError` if it is no YAML mapping, or has a key twice.
    """
    try:
        tree = YAML().load(text)
    except YAMLError as error:
        reason = str(getattr(error, "problem", error)).splitlines()[0]
        twice = isinstance(error, DuplicateKeyError)
        hint = "remove one" if twice else "check its syntax"
        raise ExperimentError(f"{where}: not valid YAML: {reason} ({hint})") from error
    if tree is not None and not isinstance(tree, CommentedMap):
        raise ExperimentError(f"{where}: not a YAML mapping (write key: value lines)")
    return CommentedMap() if tree is None else tree


def dump(tree: Mapping[str, Any]) -> str:
    """Return a tree as HyperPyYAML text."""
    stream = StringIO()
    YAML().dump(tree, stream)
    return stream.getvalue()


def update(tree: CommentedMap, changes: Mapping[str, Any], where: str) -> None:
    """Replace values of a tree in place, those of nested mappings one by one.

    Raises `ExperimentError` if the tree lacks a key.
    """
    for key, value in changes.items():
        if key not in tree:
            close = difflib.get_close_matches(str(key), map(str, tree), n=1)
            hint = f"did you mean {close[0]}?" if close else "see the YAML file"
            raise ExperimentError(f"{where}: unknown setting {key} ({hint})")
        if isinstance(value, Mapping) and isinstance(tree[key], CommentedMap):
            update(tree[key], value, where)
        else:
            tree[key] = value
            tree.ca.items.pop(key, None)  # the comment was about the former value


def placeholders(tree: Mapping[str, Any]) -> list[str]:
    """Return the keys at the top of a tree that still hold a placeholder."""
    return [key for key, value in tree.items() if PLACEHOLDER in _tags(value)]


def tag_of(node: object) -> str:
    """Return the tag of a node of a tree, such as ``!ref``; empty if it has none."""
    tag = getattr(node, "tag", None)
    return (tag.value if tag else None) or ""


def _tags(node: object) -> Iterator[str]:
    yield tag_of(node)
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _tags(child)


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


def plain_values(text: str) -> dict[str, Any]:
    """Return the values of HyperPyYAML text without references; builds no objects."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _PlainConstructor
    return yaml.load(text) or {}
