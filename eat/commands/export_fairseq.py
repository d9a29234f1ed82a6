"""``eat export fairseq``: a file for the official code."""

from __future__ import annotations

import argparse

from eat.errors import printable

HELP = "write the .pt file that the official code, or fairseq, loads"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: MODEL and OUT are all."""


def run(options: argparse.Namespace) -> None:
    """Write the file."""
    from eat.interop.fairseq_export import export_fairseq

    export_fairseq(options.model, options.out)
    print(printable(f"{options.out}: written"))
