"""``eat export TARGET MODEL OUT``; a target is a module ``export_TARGET.py`` here.

It has `HELP`, one line, and like a subcommand `add_arguments(parser)`, for what it
needs besides MODEL and OUT, and `run(options)`, with `options.model` and `options.out`.
"""

from __future__ import annotations

import argparse
import pkgutil
from importlib import import_module

from eat import commands


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a subparser for each target."""
    subparsers = parser.add_subparsers(dest="target", metavar="TARGET", required=True)
    for module in pkgutil.iter_modules(commands.__path__):
        if not module.name.startswith("export_"):
            continue
        writer = import_module(f"eat.commands.{module.name}")
        own = subparsers.add_parser(
            module.name.removeprefix("export_"),
            help=writer.HELP,
            description=writer.HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        own.add_argument("model", metavar="MODEL", help="the checkpoint to export")
        own.add_argument("out", metavar="OUT", help="what to write; it must not exist")
        writer.add_arguments(own)
        own.set_defaults(write=writer.run)


def run(options: argparse.Namespace) -> int | None:
    """Write the checkpoint for the target that was chosen."""
    return options.write(options)
