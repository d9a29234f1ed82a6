"""``eat export onnx``: a file for ONNX Runtime, in any language and in browsers."""

from __future__ import annotations

import argparse

from eat.errors import printable
from eat.utils.arguments import integer

HELP = "write an ONNX file, from waveform to scores and features"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the target needs besides MODEL and OUT."""
    parser.add_argument(
        "--int8",
        action="store_true",
        help="8-bit weights: a quarter of the size, for a small loss of accuracy",
    )
    parser.add_argument(
        "--opset",
        type=integer(18, 23),
        default=20,
        help="version of ONNX's operators (default: 20)",
    )


def run(options: argparse.Namespace) -> None:
    """Write the file, and say how close it is to PyTorch."""
    from eat.interop.onnx import export_onnx

    difference = export_onnx(options.model, options.out, options.int8, options.opset)
    text = f"{options.out}: written; differs from PyTorch by at most {difference:.1g}"
    print(printable(text))
