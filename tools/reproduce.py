"""Run the experiments behind a table or figure of the paper, at full or mini scale.

    python tools/reproduce.py --table 1 --audioset DIR --esc50 DIR --speech_commands DIR
    python tools/reproduce.py --table 2 3 --figure 3 --corpus mini --seeds 3

Finished runs are skipped; re-run the same command to resume interrupted ones.
``--list`` shows each run with its state, command and estimated GPU hours.
"""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from eat.errors import exit_on_error, printable
from eat.utils.arguments import integer
from mini_corpora.corpora import make_mini_corpora
from paper_tables.experiments import SCALES, JobFactory
from paper_tables.jobs import Job, JobError, in_order
from paper_tables.runner import Runner, run_all
from paper_tables.tables import TABLES

ROOT = Path(__file__).resolve().parents[1]
MINI_CORPORA = ROOT / "results" / "mini_corpora"
# By recipe, the option with the corpus folder, and the mini corpus.
CORPORA = {
    "AudioSet": ("audioset", "AudioSet"),
    "ESC50": ("esc50", "ESC-50-master"),
    "SpeechCommands": ("speech_commands", "speech_commands_v0.02"),
}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    for kind in ("table", "figure"):
        numbers = [table.number for table in TABLES.values() if table.kind == kind]
        add(f"--{kind}", type=int, nargs="+", choices=numbers, default=[])
    add("--corpus", choices=SCALES, default="full")
    add("--audioset", type=Path, help="AudioSet folder")
    add("--esc50", type=Path, help="ESC-50-master folder (table 1)")
    add("--speech_commands", type=Path, help="v0.02 folder (table 1)")
    add("--output", type=Path, help="default: results/<corpus>_tables")
    add("--seeds", type=integer(1, 1000), default=1, help="number of seeds")
    add("--ngpu", type=int, default=1, choices=(1, 2, 4))
    add("--list", action="store_true", help="show the runs without running them")
    args = parser.parse_args()
    if not args.table + args.figure:
        parser.error("give --table or --figure with a number")
    return args


def make_factory(args: argparse.Namespace) -> JobFactory:
    """Return the factory for the given folders and seeds."""
    data = {}
    for recipe, (option, mini_corpus) in CORPORA.items():
        default = Path(f"{option.upper()}_FOLDER")
        if args.corpus == "mini":
            default = MINI_CORPORA / mini_corpus
        data[recipe] = Path(getattr(args, option) or default).absolute()
    output = (args.output or ROOT / "results" / f"{args.corpus}_tables").absolute()
    scale, seeds = SCALES[args.corpus], tuple(range(1, args.seeds + 1))
    return JobFactory(scale, ROOT / "recipes", data, output, seeds, args.ngpu)


def show(jobs: list[Job]) -> None:
    """Print each run with its state and command."""
    missing = [job for job in jobs if job.finished() is None]
    for job in jobs:
        state = "to do" if job in missing else "finished"
        print(f"# {job.name}: {state}{_hours([job])}")
        command = (
            f"cd {shlex.quote(str(job.recipe))} && python {shlex.join(job.command)}"
        )
        print(printable(command))
    print(f"# {len(jobs)} runs, {len(missing)} to do{_hours(missing)}")


def _hours(jobs: list[Job]) -> str:
    hours = sum(job.gpu_hours for job in jobs)
    return f", about {hours:g} GPU hours" if hours else ""


def check_data(jobs: list[Job], args: argparse.Namespace) -> None:
    """Raise `JobError` if the folder of a corpus is not given or missing."""
    for job in jobs:
        option = CORPORA[job.recipe.name][0]
        folder = Path(str(job.settings["data_folder"]))
        if args.corpus == "full" and getattr(args, option) is None:
            raise JobError(f"--{option} is required ({job.recipe.name} is used)")
        if not folder.is_dir():
            raise JobError(f"{folder}: no such folder ({job.recipe.name} is used)")


@exit_on_error()
def main() -> None:
    """Run or list the experiments."""
    args = parse_args()
    names = [f"table{n}" for n in args.table] + [f"figure{n}" for n in args.figure]
    factory = make_factory(args)
    jobs = in_order(job for name in names for job in TABLES[name].jobs(factory))
    if args.list:
        show(jobs)
        return
    max_jobs = 1
    if args.corpus == "mini":
        if not (args.audioset or args.esc50 or args.speech_commands):
            make_mini_corpora(ROOT / "tools" / "bank", MINI_CORPORA)
        max_jobs = 2  # one thread each
        os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    check_data(jobs, args)
    run_all(jobs, Runner(), max_jobs)
    print("All runs have finished.")
    if args.corpus == "full":
        print("Next: python tools/tabulate_results.py")


if __name__ == "__main__":
    main()
