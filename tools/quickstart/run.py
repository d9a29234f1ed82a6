"""The quick start: corpora, pre-training, fine-tuning, probes, report."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from report import write_report  # noqa: E402

from mini_corpora.corpora import make_mini_corpora  # noqa: E402
from paper_tables.jobs import Job, JobError, Runner, cpu_options  # noqa: E402

CORES = 2


@dataclass(frozen=True)
class Plan:
    """How long the quick start trains.

    Attributes
    ----------
    epochs, steps_per_epoch
        Of pre-training.
    finetune_steps
        Of every fine-tuning, from scratch or pre-trained.
    choice_steps
        Of the shorter runs that choose a learning rate on held-out training clips.
    learning_rates
        To choose from, for either start.
    finetunings
        How many of each start, with seeds of their own.
    log_interval
        Steps between two log lines.
    """

    epochs: int = 5
    steps_per_epoch: int = 600
    finetune_steps: int = 750
    choice_steps: int = 200
    learning_rates: tuple[float, ...] = (0.0005, 0.001, 0.002)
    finetunings: int = 3
    log_interval: int = 50


# Shows that all parts work, no more.
SHORT = Plan(2, 20, 20, 10, (0.001,), finetunings=1, log_interval=5)


@dataclass(frozen=True)
class Study:
    """Makes the jobs of one quick start."""

    plan: Plan
    data: Path
    output: Path
    seed: int

    def pretraining(self) -> Job:
        """The one pre-training."""
        settings = {
            "seed": self.seed,
            "number_of_epochs": self.plan.epochs,
            "steps_per_epoch": self.plan.steps_per_epoch,
        }
        steps = self.plan.epochs * self.plan.steps_per_epoch
        return self._job("pre-training", "pretrain_mini.yaml", settings, steps)

    def choices(self, start: str) -> list[Job]:
        """Short fine-tunings, judged on every fifth training clip."""
        return [
            self._finetuning(
                f"{start}, lr {lr:g} on held-out", start, lr, self.seed, 0.2
            )
            for lr in self.plan.learning_rates
        ]

    def finetunings(self, start: str, lr: float) -> list[Job]:
        """The fine-tunings that count, judged on the evaluation clips."""
        # Other seeds for another pre-training, so that quick starts can be pooled.
        first = self.seed * self.plan.finetunings
        return [
            self._finetuning(f"{start}, seed {seed}", start, lr, seed, 0)
            for seed in range(first, first + self.plan.finetunings)
        ]

    def _finetuning(
        self, name: str, start: str, lr: float, seed: int, held_out: float
    ) -> Job:
        steps = self.plan.choice_steps if held_out else self.plan.finetune_steps
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
            "log_interval": self.plan.log_interval,
            **settings,
        }
        recipe = ROOT / "recipes" / "AudioSet"
        return Job(name, folder, recipe, yaml, settings, steps, cpu_options())


def best_rate(finished: list[Future]) -> float:
    """The learning rate with the highest mAP on held-out training clips."""
    jobs = [future.result() for future in finished]
    best = max(jobs, key=lambda job: job.results()["last"]["mAP"])
    return best.settings["lr"]


def train_all(study: Study, runner: Runner) -> dict[str, list[Job]]:
    """Run all jobs, two at a time; returns them by what they are."""
    with ThreadPoolExecutor(CORES) as pool:
        try:

            def submit(jobs: list[Job]) -> list[Future]:
                return [pool.submit(runner.run, job) for job in jobs]

            # Scratch needs no pre-training, so it trains on the other core meanwhile.
            pretraining = submit([study.pretraining()])
            choices = {"scratch": submit(study.choices("scratch"))}
            rate = best_rate(choices["scratch"])
            tuned = {"scratch": submit(study.finetunings("scratch", rate))}
            pretraining[0].result()
            choices["pre-trained"] = submit(study.choices("pre-trained"))
            rate = best_rate(choices["pre-trained"])
            tuned["pre-trained"] = submit(study.finetunings("pre-trained", rate))
            finished = {"pretraining": pretraining, **tuned}
            finished["choices"] = choices["scratch"] + choices["pre-trained"]
            return {
                kind: [future.result() for future in futures]
                for kind, futures in finished.items()
            }
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            runner.stop()
            raise


def main() -> None:
    """Read the command line and run the stages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="default: results/quickstart")
    parser.add_argument("--data", type=Path, default=ROOT / "results" / "mini_corpora")
    parser.add_argument("--seed", type=int, default=0, help="of the pre-training")
    parser.add_argument("--short", action="store_true", help="only show that it works")
    options = parser.parse_args()
    name = "quickstart-short" if options.short else "quickstart"
    name += f"-seed{options.seed}" if options.seed else ""
    output = (options.output or ROOT / "results" / name).resolve()
    study = Study(
        SHORT if options.short else Plan(), options.data.resolve(), output, options.seed
    )
    started = time.perf_counter()
    try:
        print(f"1. Mini corpora in {study.data}")
        make_mini_corpora(ROOT / "tools" / "bank", study.data)
        print(f"2. Training, two runs at a time, in {output / 'runs'}")
        jobs = train_all(study, Runner())
        print("3. Probes of frozen features, report")
        print(write_report(jobs, study.data / "AudioSet", output, options.seed))
    except (JobError, OSError, ValueError) as error:
        sys.exit(f"quickstart: {error}")
    except KeyboardInterrupt:
        sys.exit("quickstart: interrupted; the same command goes on where it stopped")
    minutes = (time.perf_counter() - started) / 60
    print(f"\n{minutes:.1f} minutes. Report and pictures: {output / 'report.md'}")


if __name__ == "__main__":
    main()
