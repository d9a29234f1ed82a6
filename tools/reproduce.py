"""Run what a table or figure of the paper is made of, at full size or in miniature.

    python tools/reproduce.py table1 --audioset DIR --esc50 DIR --speech_commands DIR
    python tools/reproduce.py table3 --corpus mini --seeds 3

Finished runs are skipped, interrupted ones go on. ``--list`` shows every run, whether
it is done, its command and an estimate of its GPU hours, and runs nothing.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from mini_corpora.corpora import make_mini_corpora
from paper_tables.jobs import JobError, Runner
from paper_tables.plan import TABLES, Study
from paper_tables.scale import FULL, mini_scale
from paper_tables.schedule import in_order, run_all

ROOT = Path(__file__).resolve().parents[1]
MINI = ROOT / "results" / "mini_corpora"
OPTIONS = {
    "AudioSet": "audioset",
    "ESC50": "esc50",
    "SpeechCommands": "speech_commands",
}
MINI_FOLDERS = {
    "AudioSet": "AudioSet",
    "ESC50": "ESC-50-master",
    "SpeechCommands": "speech_commands_v0.02",
}


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=TABLES, nargs="+")
    parser.add_argument("--corpus", choices=("full", "mini"), default="full")
    parser.add_argument("--audioset", type=Path, help="AudioSet's folder")
    parser.add_argument("--esc50", type=Path, help="ESC-50-master (table 1)")
    parser.add_argument("--speech_commands", type=Path, help="v0.02 (table 1)")
    parser.add_argument("--output", type=Path, help="default: results/<corpus>_tables")
    parser.add_argument("--seeds", type=int, default=1, help="runs of every cell")
    parser.add_argument("--ngpu", type=int, default=1, choices=(1, 2, 4))
    parser.add_argument(
        "--list", action="store_true", help="show the runs, run nothing"
    )
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("--seeds: at least 1")
    return options


def make_study(options: argparse.Namespace) -> Study:
    """The study asked for; makes the mini corpora if they are needed and missing."""
    mini = options.corpus == "mini"
    given = (options.audioset, options.esc50, options.speech_commands)
    data = dict(zip(MINI_FOLDERS, given, strict=True))
    if mini:
        data = {name: data[name] or MINI / MINI_FOLDERS[name] for name in data}
        if not options.list and not any(given):
            make_mini_corpora(ROOT / "tools" / "bank", MINI)
    output = options.output or ROOT / "results" / f"{options.corpus}_tables"
    return Study(
        mini_scale() if mini else FULL,
        ROOT / "recipes",
        {k: (v or Path(f"{k.upper()}_FOLDER")).absolute() for k, v in data.items()},
        output.absolute(),
        tuple(range(1, options.seeds + 1)),
        options.ngpu,
    )


def show(study: Study, what: list[str]) -> None:
    """Print every run with its command."""
    cells = [cell for table in what for cell in study.cells(table)]
    jobs = in_order(job for cell in cells for job in cell.jobs)
    for job in jobs:
        state = "done" if job.done() else "to do"
        hours = f", some {job.gpu_hours:g} GPU hours" if job.gpu_hours else ""
        print(f"# {job.name}: {state}{hours}")
        print(f"cd {shlex.quote(str(job.recipe))} && python {shlex.join(job.command)}")
    hours = sum(job.gpu_hours or 0 for job in jobs if not job.done())
    print(
        f"# {len(jobs)} runs, {sum(job.done() is None for job in jobs)} to do", end=""
    )
    print(f", some {hours:g} GPU hours" if hours else "")


def main() -> None:
    """Run or list."""
    options = read_options()
    study = make_study(options)
    if options.list:
        show(study, options.what)
        return
    cells = [cell for table in options.what for cell in study.cells(table)]
    jobs = in_order(job for cell in cells for job in cell.jobs)
    needed = {job.recipe.name for job in jobs}
    for name in sorted(needed):
        given = getattr(options, OPTIONS[name])
        if given is None and options.corpus == "full":
            sys.exit(f"reproduce: --{OPTIONS[name]} is missing ({name} is needed)")
        if not study.data[name].is_dir():
            sys.exit(f"reproduce: {study.data[name]}: no such folder, {name} is needed")
    at_a_time = 2 if options.corpus == "mini" else 1
    if options.corpus == "mini":  # two trainings share two cores
        os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        run_all(jobs, Runner(at_a_time), at_a_time)
    except JobError as error:
        sys.exit(f"reproduce: {error}")
    except KeyboardInterrupt:
        sys.exit("reproduce: interrupted; the same command goes on where it stopped")
    print("All done. The tables: python tools/tabulate_results.py")


if __name__ == "__main__":
    main()
