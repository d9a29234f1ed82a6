"""Make mini AudioSet, ESC-50 and Speech Commands from the recordings in tools/bank.

Usage: python tools/make_mini_corpora.py OUT [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mini_corpora.corpora import make_mini_corpora


def main() -> None:
    """Read the command line and make the corpora."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder that gets the corpora")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice")
    parser.add_argument(
        "--bank",
        type=Path,
        default=Path(__file__).resolve().parent / "bank",
        help="the folder with clips.csv (default: tools/bank)",
    )
    arguments = parser.parse_args()
    try:
        make_mini_corpora(arguments.bank, arguments.out, arguments.seed)
    except (OSError, ValueError) as error:
        sys.exit(f"make_mini_corpora: {error}")


if __name__ == "__main__":
    main()
