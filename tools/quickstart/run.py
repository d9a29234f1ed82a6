"""Quick start: make corpora, pre-train, fine-tune, probe, and write a report."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from eat.errors import exit_on_error, printable  # noqa: E402
from eat.experiment.console import quiet_speechbrain  # noqa: E402
from eat.utils.arguments import integer  # noqa: E402
from mini_corpora.corpora import make_mini_corpora  # noqa: E402
from paper_tables.jobs import Job, cpu_options  # noqa: E402
from paper_tables.runner import Runner  # noqa: E402
from quickstart.report import write_report  # noqa: E402

MAX_JOBS = 2  # two CPU cores, one thread each


@dataclass(frozen=True)
class TrainingLengths:
    """How long, how often and with which learning rates the quick start trains."""

    epochs: int = 5  # of pre-training
    steps_per_epoch: int = 600
    finetune_steps: int = 750  # of each fine-tuning, from scratch or pre-trained
    search_steps: int = 200  # of the runs that select a learning rate
    learning_rates: tuple[float, ...] = (0.0005, 0.001, 0.002)
    finetunings: int = 3  # from scratch, and as many pre-trained
    log_interval: int = 50


# Long enough to show that all parts work.
SHORT = TrainingLengths(2, 20, 20, 10, (0.001,), finetunings=1, log_interval=5)


@dataclass(frozen=True)
class JobFactory:
    """Makes the jobs of one quick start."""

    lengths: TrainingLengths
    data: Path
    output: Path
    seed: int

    def pretraining(self) -> Job:
        """Return the pre-training."""
        settings = {
            "seed": self.seed,
            "number_of_epochs": self.lengths.epochs,
            "steps_per_epoch": self.lengths.steps_per_epoch,
        }
        steps = self.lengths.epochs * self.lengths.steps_per_epoch
        return self._job("pre-training", "pretrain_mini.yaml", settings, steps)

    def search(self, start: str) -> list[Job]:
        """Return a fine-tuning per learning rate, evaluated on held-out clips."""
        return [
            self._finetuning(
                f"{start}, lr {lr:g} on held-out", start, lr, self.seed, held_out=0.2
            )
            for lr in self.lengths.learning_rates
        ]

    def finetunings(self, start: str, lr: float) -> list[Job]:
        """Return the fine-tunings that are reported, one per seed."""
        # Each pre-training seed has its own fine-tuning seeds: results can be pooled.
        first = self.seed * self.lengths.finetunings
        return [
            self._finetuning(f"{start}, seed {seed}", start, lr, seed, held_out=0)
            for seed in range(first, first + self.lengths.finetunings)
        ]

    def _finetuning(
        self, name: str, start: str, lr: float, seed: int, held_out: float
    ) -> Job:
        lengths = self.lengths
        steps = lengths.search_steps if held_out else lengths.finetune_steps
        model = self.pretraining().folder / "model"
        settings = {
            "seed": seed,
            "lr": lr,
            "held_out": held_out,
            "steps_per_epoch": steps,
            "pretrained": model if start == "pre-trained" else "none",
        }
        return self._job(name, "finetune_mini.yaml", settings, steps)

    def _job(self, name: str, yaml: str, settings: dict, steps: int) -> Job:
        folder = self.output / "runs" / name.replace(", ", "-").replace(" ", "_")
        settings = {
            "data_folder": self.data / "AudioSet",
            "manifest_folder": self.output / "manifests",
            "log_interval": self.lengths.log_interval,
            **settings,
        }
        recipe = ROOT / "recipes" / "AudioSet"
        return Job(name, folder, recipe, yaml, settings, steps, cpu_options())


def best_learning_rate(finished: list[Future]) -> float:
    """Return the learning rate with the highest mAP on held-out training clips."""
    jobs = [future.result() for future in finished]
    best = max(jobs, key=lambda job: job.results()["last"]["mAP"])
    return best.settings["lr"]


def train_all(factory: JobFactory, runner: Runner) -> dict[str, list[Job]]:
    """Run all jobs, two at a time, and return them by kind."""
    with ThreadPoolExecutor(MAX_JOBS) as pool:
        try:

            def submit(jobs: list[Job]) -> list[Future]:
                return [pool.submit(runner.run, job) for job in jobs]

            # Runs from scratch use the second core during pre-training.
            pretraining = submit([factory.pretraining()])
            scratch_search = submit(factory.search("scratch"))
            lr = best_learning_rate(scratch_search)
            scratch = submit(factory.finetunings("scratch", lr))
            pretraining[0].result()
            search = submit(factory.search("pre-trained"))
            lr = best_learning_rate(search)
            finished = {
                "pretraining": pretraining,
                "scratch": scratch,
                "pre-trained": submit(factory.finetunings("pre-trained", lr)),
                "search": scratch_search + search,
            }
            return {
                kind: [future.result() for future in futures]
                for kind, futures in finished.items()
            }
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            runner.stop()
            raise


@exit_on_error()
def main() -> None:
    """Parse the command line and run all steps."""
    quiet_speechbrain()
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--output", type=Path, help="default: results/quickstart")
    add("--data", type=Path, default=ROOT / "results" / "mini_corpora")
    add("--seed", type=integer(0), default=0, help="pre-training seed")
    add("--short", action="store_true", help="a few steps, to see that all parts work")
    args = parser.parse_args()
    name = "quickstart-short" if args.short else "quickstart"
    if args.seed:
        name += f"-seed{args.seed}"
    output = (args.output or ROOT / "results" / name).resolve()
    lengths = SHORT if args.short else TrainingLengths()
    factory = JobFactory(lengths, args.data.resolve(), output, args.seed)
    started = time.perf_counter()
    print(printable(f"1. Mini corpora: {factory.data}"))
    make_mini_corpora(ROOT / "tools" / "bank", factory.data)
    print(printable(f"2. Training, {MAX_JOBS} runs at a time: {output / 'runs'}"))
    jobs = train_all(factory, Runner())
    print("3. Probes of frozen features and report")
    print(write_report(jobs, factory.data / "AudioSet", output, args.seed))
    minutes = (time.perf_counter() - started) / 60
    report = printable(str(output / "report.md"))
    print(f"\n{minutes:.1f} minutes. Report and pictures: {report}")


if __name__ == "__main__":
    main()
