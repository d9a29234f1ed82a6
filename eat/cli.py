"""The `eat` command: features, tags and exports of trained models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from eat._version import __version__
from eat.errors import exit_on_error

# Subcommand, a module of `eat.commands` -> its line in the help.
COMMANDS = {
    "features": "write the features of files, folders or a manifest",
    "tag": "print the classes detected in audio files",
    "neighbors": "find the recordings of a folder that are most similar to a file",
    "probe": "evaluate frozen features of a model on a prepared corpus",
    "info": "describe a checkpoint",
    "export": "write a checkpoint for other programs: fairseq, Hugging Face, ONNX",
    "report": "write curves, pictures and results of runs as one HTML page",
    "demo": "write a web page that tags sound in the browser",
}


def make_parser(name: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; the arguments of subcommand `name` only are filled in."""
    parser = argparse.ArgumentParser(prog="eat", description=__doc__)
    parser.add_argument("--version", action="version", version=f"eat {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, line in COMMANDS.items():
        own = subparsers.add_parser(
            command,
            help=line,
            description=line,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command == name:
            _module(command).add_arguments(own)
    return parser


def _module(command: str) -> ModuleType:
    return import_module(f"eat.commands.{command}")


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand; the exit status is 0 only if all of its work was done."""
    argv = sys.argv[1:] if argv is None else list(argv)
    name = next((word for word in argv if not word.startswith("-")), None)
    options = make_parser(name).parse_args(argv)
    status = _module(options.command).run(options)
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
