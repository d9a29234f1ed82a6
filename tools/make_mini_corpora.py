"""Make mini AudioSet, ESC-50 and Speech Commands from the recordings in tools/bank.

Usage: python tools/make_mini_corpora.py OUT [--seed 0]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eat.errors import exit_on_error
from eat.utils.arguments import integer
from eat.utils.files import write_text
from mini_corpora.bank import attribution_table, load_bank
from mini_corpora.corpora import make_mini_corpora

BANK = Path(__file__).resolve().parent / "bank"


@exit_on_error()
def main() -> None:
    """Parse the command line and make the corpora."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("out", type=Path, nargs="?", help="output folder")
    add("--seed", type=integer(0), default=0, help="random seed (default: 0)")
    rewrite = "only rewrite tools/bank/ATTRIBUTION.md from clips.csv"
    add("--attribution", action="store_true", help=rewrite)
    arguments = parser.parse_args()
    if (arguments.out is None) != arguments.attribution:
        parser.error("pass either OUT or --attribution")
    if arguments.attribution:
        write_text(BANK / "ATTRIBUTION.md", attribution_table(load_bank(BANK)))
    else:
        make_mini_corpora(BANK, arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
