"""Compare the first 200 steps of each mini pre-training with the stored curves.

python tools/golden_curves.py            # is this set-up right? some four minutes
python tools/golden_curves.py --write    # after a change that is meant to be one
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from mini_corpora.corpora import make_mini_corpora
from paper_tables.golden import (
    RECIPES,
    deviations,
    differences,
    golden_job,
    read_curve,
    read_golden,
)
from paper_tables.jobs import JobError, Runner
from paper_tables.schedule import run_all

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "results" / "published" / "golden"


def main() -> None:
    """Run all recipes; compare or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="replace the curves")
    write = parser.parse_args().write
    corpora, wrong = ROOT / "results" / "mini_corpora", []
    make_mini_corpora(ROOT / "tools" / "bank", corpora)
    with tempfile.TemporaryDirectory() as output:
        jobs = {
            recipe: golden_job(recipe, ROOT / "recipes", corpora, Path(output))
            for recipe in RECIPES
        }
        try:
            run_all(jobs.values(), Runner(), at_a_time=2)
        except JobError as error:
            sys.exit(f"golden_curves: {error}")
        for recipe, job in jobs.items():
            curve, stored = read_curve(job.folder), GOLDEN / f"{recipe}.csv"
            if write:
                stored.parent.mkdir(parents=True, exist_ok=True)
                curve.to_csv(stored, float_format="%.6g")
                continue
            golden = read_golden(stored)
            print(f"{recipe}: largest relative differences")
            print(deviations(curve, golden).to_string(float_format="{:.2%}".format))
            wrong += [f"{recipe}, {line}" for line in differences(curve, golden)]
    if wrong:
        sys.exit("golden_curves: this is not the same training\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
