"""Compare the first 200 steps of each mini pre-training with stored curves.

    python tools/golden_curves.py            # check an installation; about four minutes
    python tools/golden_curves.py --write    # after an intended change

The stored curves are in fp32 on a CPU. Other processors round differently and training
amplifies the differences, so curves agree within tolerances; a change of the method
exceeds them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pandas as pd

from eat.errors import exit_on_error
from eat.report.curves import read_metrics
from mini_corpora.corpora import make_mini_corpora
from paper_tables.jobs import Job
from paper_tables.records import RecordError
from paper_tables.runner import Runner, run_all

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "results" / "published" / "golden"
STEPS, INTERVAL = 200, 10
# Largest allowed relative difference. Between AVX2 and AVX-512, or one and two threads,
# it was at most 0.2%; on another CPU model 1.8% (prediction_std) and 0.5% (the others).
LOSSES = {"loss": 0.02, "frame_loss": 0.02, "utterance_loss": 0.02}
SIGNALS = {"target_std": 0.02, "prediction_std": 0.05, "between_clip_variance": 0.02}
TOLERANCES = LOSSES | SIGNALS
# Corpus in the folder of the mini corpora, and steps of the whole schedule.
RECIPES = {
    "AudioSet": ("AudioSet", 3000),
    "ESC50": ("ESC-50-master", 600),
    "SpeechCommands": ("speech_commands_v0.02", 600),
}


def golden_job(recipe: str, corpora: Path, output: Path) -> Job:
    """Return the run of a recipe's curve: the first steps of its mini pre-training."""
    corpus, total_steps = RECIPES[recipe]
    settings = {
        "data_folder": corpora / corpus,
        "number_of_epochs": 1,
        "steps_per_epoch": STEPS,
        "total_steps": total_steps,
        "log_interval": INTERVAL,
    }
    options = "--device cpu --noprogressbar --precision fp32 --eval_precision fp32"
    name, yaml = f"golden curve of {recipe}", "pretrain_mini.yaml"
    folder, words = output / recipe, tuple(options.split())
    return Job(name, folder, ROOT / "recipes" / recipe, yaml, settings, STEPS, words)


def read_curve(run: Path) -> pd.DataFrame:
    """Read the metrics of a run's steps, indexed by step."""
    metrics = read_metrics(run / "metrics.jsonl")
    steps = metrics[metrics["kind"] == "step"]
    return steps.set_index("step")[list(TOLERANCES)]


def read_golden(recipe: str) -> pd.DataFrame:
    """Read a stored curve."""
    return pd.read_csv(GOLDEN / f"{recipe}.csv", index_col="step")


def deviations(curve: pd.DataFrame, golden: pd.DataFrame) -> pd.Series:
    """Return the largest relative difference of each metric.

    Raises `RecordError` if steps or metrics differ.
    """
    if list(curve.index) != list(golden.index) or set(curve) != set(golden):
        raise RecordError(
            f"the curve has steps {list(curve.index)} of {list(curve)}, the golden "
            f"curve {list(golden.index)} of {list(golden)}"
        )
    return ((curve - golden[curve.columns]).abs() / golden[curve.columns].abs()).max()


def differences(curve: pd.DataFrame, golden: pd.DataFrame) -> list[str]:
    """Return a line for each metric out of tolerance."""
    shares = deviations(curve, golden)
    return [
        f"{name}: differs by {shares[name]:.1%} from the golden curve ({limit:.0%} "
        "allowed)"
        for name, limit in TOLERANCES.items()
        if not shares[name] <= limit  # also true for NaN
    ]


@exit_on_error()
def main() -> None:
    """Run all recipes; compare or write their curves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="replace the curves")
    write = parser.parse_args().write
    corpora, failed = ROOT / "results" / "mini_corpora", []
    make_mini_corpora(ROOT / "tools" / "bank", corpora)
    with tempfile.TemporaryDirectory() as output:
        jobs = {name: golden_job(name, corpora, Path(output)) for name in RECIPES}
        run_all(jobs.values(), Runner(), max_jobs=2)
        for recipe, job in jobs.items():
            curve = read_curve(job.folder)
            if write:
                GOLDEN.mkdir(parents=True, exist_ok=True)
                curve.to_csv(GOLDEN / f"{recipe}.csv", float_format="%.6g")
                continue
            golden = read_golden(recipe)
            print(f"{recipe}: largest relative differences")
            print(deviations(curve, golden).to_string(float_format="{:.2%}".format))
            failed += [f"{recipe}, {line}" for line in differences(curve, golden)]
    if failed:
        print("\n".join(failed), file=sys.stderr)
        raise RecordError("the curves differ (use --write if that is intended)")


if __name__ == "__main__":
    main()
