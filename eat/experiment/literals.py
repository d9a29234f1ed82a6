"""Keep quoted texts as they are in what HyperPyYAML reads.

HyperPyYAML looks for references, tuples and arithmetic in texts, and passes each file
through YAML several times, without the quotes. A text that a user gave, such as the
name of a folder, is therefore hidden behind a name that means nothing, and put back at
the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import Loader
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, ScalarString

NAME = re.compile(r"LITERAL(\d+)LITERAL")


class Literals:
    """The quoted texts hidden in a tree."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def hide(self, tree: Any) -> None:
        """Replace the quoted texts of a tree by names, in place."""
        _replace(tree, self._name_of, set())

    def reveal(self, tree: Any) -> None:
        """Put the texts back, quoted, also where they are part of a longer one."""
        _replace(tree, self._quoted, set())

    def text_of(self, text: str) -> str:
        """Return a text with the hidden ones put back."""
        return NAME.sub(lambda name: self.texts[int(name[1])], text)

    def _name_of(self, text: str) -> str:
        if not isinstance(text, ScalarString) and not NAME.search(text):
            return text
        self.texts.append(str(text))
        return f"LITERAL{len(self.texts) - 1}LITERAL"

    def _quoted(self, text: str) -> str:
        if not NAME.search(text):
            return text
        return DoubleQuotedScalarString(self.text_of(text))

    def load(self, text: str) -> dict[str, Any]:
        """Build the objects of HyperPyYAML text in which texts are hidden."""
        literals = self

        class RevealingLoader(Loader):
            """ruamel's loader, as HyperPyYAML uses it."""

            def construct_scalar(self, node: ScalarNode) -> Any:
                """Return the value, with the hidden texts put back."""
                value = super().construct_scalar(node)
                return literals.text_of(value) if isinstance(value, str) else value

        return load_hyperpyyaml(text, loader=RevealingLoader)


def _replace(node: Any, change: Callable[[str], str], seen: set[int]) -> None:
    """Change the texts of all mappings and lists below a node; not the keys."""
    if not isinstance(node, dict | list) or id(node) in seen:
        return
    seen.add(id(node))
    for key, child in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(child, str):
            node[key] = change(child)
        else:
            _replace(child, change, seen)
