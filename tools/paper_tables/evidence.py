"""Run the small-scale study that docs/evidence.md reports.

    python tools/paper_tables/evidence.py --list                 # runs and minutes
    python tools/paper_tables/evidence.py --study curve blocks   # some parts
    python tools/paper_tables/evidence.py                        # everything
    python tools/paper_tables/evidence.py --page                 # only write the page

Two runs at a time, one thread each. Finished runs are skipped; re-run the same command
to resume interrupted ones.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from eat.errors import exit_on_error, printable  # noqa: E402
from eat.utils.arguments import integer  # noqa: E402
from evidence.comparing import write_comparisons  # noqa: E402
from evidence.corpus import make_corpus  # noqa: E402
from evidence.label_runs import run_labels  # noqa: E402
from evidence.labels import expected_minutes  # noqa: E402
from evidence.page import update_readme, write_page  # noqa: E402
from evidence.quoting import LABELS as LABELS_FILE  # noqa: E402
from evidence.references import write_baselines  # noqa: E402
from evidence.runner import StudyRunner  # noqa: E402
from evidence.studies import JobFactory, Row, read_studies, runs_of  # noqa: E402
from evidence.tables import MAX_JOBS  # noqa: E402
from evidence.utterance_variance import ROWS, write_variances  # noqa: E402
from paper_tables.runner import Runner, run_all  # noqa: E402

LABELS = "labels"  # the part that fine-tunes, after the pre-trainings
PAGE = ROOT / "docs" / "evidence.md"


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    studies = [*read_studies(), LABELS]
    add("--study", nargs="+", choices=studies, default=studies, help="parts to run")
    add("--seeds", type=integer(1, 100), help="at most so many seeds of each row")
    add("--output", type=Path, default=ROOT / "results" / "evidence", help="of runs")
    published = ROOT / "results" / "published" / "evidence"
    add("--results", type=Path, default=published, help="folder of the JSON files")
    add("--list", action="store_true", help="show the runs without running them")
    add("--page", action="store_true", help="only write the pages")
    return parser.parse_args()


def show(
    runs: list[tuple[Row, int]], labels: bool, factory: JobFactory, results: Path
) -> None:
    """Print each run with its state and expected minutes."""
    left = 0.0
    for row, seed in runs:
        job = factory.pretraining(row, seed)
        done = (results / f"{job.name}.json").exists()
        left += 0 if done else row.minutes
        state = "measured" if done else f"about {row.minutes:.0f} minutes"
        print(printable(f"{job.name}: {state}"))
    if labels and not (results / LABELS_FILE).exists():
        left += expected_minutes()
        print(f"fine-tuning with few labels: about {expected_minutes():.0f} minutes")
    left /= MAX_JOBS
    print(f"{len(runs)} pre-trainings; about {left:.0f} minutes left on two cores")


def write_pages(results: Path) -> None:
    """Write the page and the main results in the README."""
    write_page(results, PAGE)
    update_readme(results, ROOT / "README.md")
    print("Written: docs/evidence.md, README.md. For RESULTS.md: tabulate_results.py")


@exit_on_error()
def main() -> None:
    """Run or list the study."""
    args = parse_args()
    studies = read_studies()
    chosen = [studies[name] for name in args.study if name != LABELS]
    if LABELS in args.study:
        chosen.append(studies["curve"])  # whose models are fine-tuned
    runs = runs_of(chosen, args.seeds)
    factory = JobFactory(args.output.absolute())
    if args.list:
        show(runs, LABELS in args.study, factory, args.results)
        return
    if args.page:
        write_pages(args.results)
        return
    make_corpus(factory.corpora)
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    os.environ["PYTHONPATH"] = str(ROOT / "tools")  # for YAML files of the study
    write_baselines(factory, args.results)
    jobs = [factory.pretraining(row, seed) for row, seed in runs]
    rows = {row.name: row for study in studies.values() for row in study.rows}
    default, *_ = measured = [rows[name] for name in ROWS]
    try:
        run_all(jobs, StudyRunner(factory, args.results, runs), MAX_JOBS)
        if all((row, 1) in runs for row in measured):
            write_variances(factory, measured, args.results)
        if LABELS in args.study:
            run_labels(factory, default, Runner(), args.results, MAX_JOBS)
    finally:  # of what has finished, also if a run failed
        write_comparisons(factory, args.results)
        write_pages(args.results)


if __name__ == "__main__":
    main()
