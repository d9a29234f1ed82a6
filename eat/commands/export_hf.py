"""``eat export hf``: a folder for Hugging Face transformers."""

from __future__ import annotations

import argparse

from eat.errors import CheckpointError, printable

HELP = "write a folder for Hugging Face transformers, sentence-transformers and the Hub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the labels; MODEL and OUT are there."""
    parser.add_argument(
        "--labels", metavar="FILE", help="names of the classes, one per line or CSV"
    )


def run(options: argparse.Namespace) -> None:
    """Write the folder."""
    try:
        from transformers.utils import logging

        from eat.interop.hugging_face_export import export_hugging_face
    except ImportError as error:
        raise CheckpointError(
            f"{options.out}: transformers cannot be imported, {error} (pip install "
            "'eat-toolkit[hf]')"
        ) from error
    from eat.interop.labels import read_label_names

    logging.disable_progress_bar()
    labels = None if options.labels is None else read_label_names(options.labels)
    export_hugging_face(options.model, options.out, labels)
    print(printable(f"{options.out}: written"))
