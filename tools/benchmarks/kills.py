"""Kill runs at random moments, resume them, and compare the results bit by bit.

    python tools/benchmarks/kills.py [--kills 32] [--seed 0] [--write FILE.json]

Each setting is trained once without interruption and once with SIGKILL at random
moments and while a checkpoint is being written. Weights, optimizer, logs and results
must then be bit-identical, except for times (fp32 on the CPU).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from eat.errors import EATError, exit_on_error
from eat.utils.arguments import integer
from eat.utils.files import write_json

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from mini_corpora.audioset import AudioSetSizes, write_audioset  # noqa: E402
from mini_corpora.bank import load_bank  # noqa: E402
from paper_tables.jobs import Job  # noqa: E402

RECIPE = ROOT / "recipes" / "AudioSet"
MACHINE = (
    "--device cpu --precision fp32 --eval_precision fp32 --noprogressbar "
    "--distributed_backend gloo"
)
LENGTH = (
    "--number_of_epochs 3 --steps_per_epoch 8 --batch_size 4 --log_interval 2 "
    "--ckpt_interval_steps 4"
)
OUTPUT_LINES = 30  # of a failed run
TIMES = {"clips_per_second", "data_share", "hours", "device_hours", "peak_memory_mb"}
INPUTS = {"settings", "versions"}  # in results.json, but no results


@dataclass(frozen=True)
class Setting:
    """A training configuration: YAML file, options, number of processes."""

    yaml: str
    options: str = ""
    processes: int = 1

    @property
    def name(self) -> str:
        """Readable name."""
        words = [self.yaml.removesuffix("_mini.yaml"), *self.options.split()]
        return " ".join([*words, f"in {self.processes} process(es)"])

    def command(self, data: Path, run: Path) -> list[str]:
        """Return the command line that starts and resumes a run."""
        options, manifests = f"{LENGTH} {self.options}", data.parent / "manifests"
        folders = {"data_folder": data, "manifest_folder": manifests}
        return train_command(run, self.yaml, options, self.processes, **folders)


def train_command(
    run: Path, yaml: str, options: str, processes: int, **settings: object
) -> list[str]:
    """Return the command line that starts and resumes a run of the AudioSet recipe."""
    words = (*MACHINE.split(), *options.split())
    job = Job(run.name, run, RECIPE, yaml, settings, 0, words, processes)
    return [sys.executable, *job.command]


PRETRAIN = "--clones 2 --train_manifest pretrain --held_out 0.5"
FINETUNE = "--pretrained none"
ACCUMULATE = "--grad_accumulation_factor 2"
SETTINGS = (
    Setting("pretrain_mini.yaml", f"{PRETRAIN} --num_workers 0"),
    Setting("pretrain_mini.yaml", f"{PRETRAIN} --num_workers 2"),
    Setting("pretrain_mini.yaml", f"{PRETRAIN} --num_workers 0 {ACCUMULATE}"),
    Setting("pretrain_mini.yaml", f"{PRETRAIN} --num_workers 0", processes=2),
    Setting("finetune_mini.yaml", f"{FINETUNE} --num_workers 0"),
    Setting("finetune_mini.yaml", f"{FINETUNE} --num_workers 2 {ACCUMULATE}"),
    Setting("finetune_mini.yaml", f"{FINETUNE} --num_workers 0 --weighted_draws 36"),
    Setting("finetune_mini.yaml", f"{FINETUNE} --num_workers 2", processes=2),
)


def mini_audioset(folder: Path, sizes: AudioSetSizes) -> Path:
    """Write a mini AudioSet into a folder of its own; return it."""
    (corpus := folder / "AudioSet").mkdir()
    write_audioset(load_bank(ROOT / "tools" / "bank"), corpus, 0, sizes, workers=2)
    return corpus


def start(setting: Setting, data: Path, run: Path) -> subprocess.Popen:
    """Start or resume a run in its own process group."""
    return start_command(setting.command(data, run), run)


def start_command(command: list[str], run: Path) -> subprocess.Popen:
    """Start a command that trains in the folder `run`, which gets its output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run.mkdir(parents=True, exist_ok=True)
    with open(run / "output.txt", "a", encoding="utf-8") as output:
        return subprocess.Popen(
            command,
            cwd=RECIPE,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end_of_output(run: Path) -> str:
    """Return where a run's output is, and its last lines."""
    path = run / "output.txt"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([f"{path}:", *lines[-OUTPUT_LINES:]])


def wait_to_kill(process: subprocess.Popen, run: Path, rng: random.Random) -> str:
    """Wait for a random moment and return which; empty if the run ended before."""
    in_checkpoint = rng.random() < 0.4
    seen = _size(run / "metrics.jsonl")
    deadline: float | None = None
    while process.poll() is None:
        if in_checkpoint:
            if any(run.glob("save/.partial-*")):
                return "while writing a checkpoint"
        elif deadline is None and _size(run / "metrics.jsonl") != seen:
            deadline = time.monotonic() + rng.uniform(0, 1.0)  # it is training
        elif deadline is not None and time.monotonic() > deadline:
            return "while training"
        time.sleep(0.0005)
    return ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def train_under_kills(
    setting: Setting, data: Path, run: Path, kills: int, rng: random.Random
) -> list[str]:
    """Train to the end, killing the run at most `kills` times; return the moments."""
    moments: list[str] = []
    while True:
        process = start(setting, data, run)
        moment = wait_to_kill(process, run, rng) if len(moments) < kills else ""
        if moment:
            kill_all(process)
            moments.append(moment)
        if process.wait() == 0:
            return moments
        if not moment:
            raise EATError(f"{setting.name}: failed, {end_of_output(run)}")


def kill_all(process: subprocess.Popen) -> None:
    """Kill a run with its ranks and data workers, and wait until they have exited.

    Killing the launcher's process group is not enough: each rank has its own session.
    """
    launcher = psutil.Process(process.pid)
    launcher.suspend()  # so that it does not start others meanwhile
    family = [launcher, *launcher.children(recursive=True)]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    while any(map(is_alive, family)):
        time.sleep(0.01)


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process is still running (a zombie is not)."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def differences(uninterrupted: Path, killed: Path) -> Iterator[str]:
    """Yield what differs between two finished runs, except for times."""
    runs = (uninterrupted, killed)
    for name in ("metrics.jsonl", "results.json"):
        ours, theirs = (_without_times(run / name) for run in runs)
        if ours != theirs:
            yield name
    if len({(run / "train_log.txt").read_bytes() for run in runs}) > 1:
        yield "train_log.txt"
    model, other = (load_file(run / "model" / "model.safetensors") for run in runs)
    yield from (f"model: {k}" for k in model if not torch.equal(model[k], other[k]))
    states, others = (_newest_optimizer(run)["state"] for run in runs)
    for index, state in states.items():
        for key, value in state.items():
            if not torch.equal(value, others[index][key]):
                yield f"optimizer: {key} of parameter {index}"


def _without_times(path: Path) -> list[dict]:
    """Return the records of a log or results file without times and settings."""
    text = path.read_text(encoding="utf-8")
    records = map(json.loads, text.splitlines() if path.suffix == ".jsonl" else [text])

    def kept(values: dict) -> dict:
        return {k: v for k, v in values.items() if k not in TIMES | INPUTS}

    return [kept(r) | {"cost": kept(r.get("cost", {}))} for r in records]


def _newest_optimizer(run: Path) -> dict:
    newest = max((run / "save").glob("CKPT*"), key=lambda path: path.stat().st_mtime)
    return torch.load(newest / "optimizer.ckpt", weights_only=True)


def try_setting(
    setting: Setting, data: Path, work: Path, kills: int, rng: random.Random
) -> dict[str, Any]:
    """Train with and without kills; return the moments and the differences."""
    uninterrupted, killed = work / "uninterrupted", work / "killed"
    for run in (uninterrupted, killed):
        shutil.rmtree(run, ignore_errors=True)
    train_under_kills(setting, data, uninterrupted, 0, rng)
    moments = train_under_kills(setting, data, killed, kills, rng)
    found = list(differences(uninterrupted, killed))
    return {"setting": setting.name, "kills": moments, "differences": found}


@exit_on_error()
def main() -> None:
    """Try all settings; print and write the outcome."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kills", type=integer(1), default=32, help="kills over all settings"
    )
    parser.add_argument(
        "--seed", type=integer(0), default=0, help="seed of the moments"
    )
    parser.add_argument("--write", type=Path, help="JSON file for the outcome")
    options = parser.parse_args()
    rng, outcomes = random.Random(options.seed), []
    share = -(-options.kills // len(SETTINGS))
    with tempfile.TemporaryDirectory() as folder:
        data = mini_audioset(Path(folder), AudioSetSizes(48, 48, 12))
        for setting in tqdm(SETTINGS, unit="setting", disable=None):
            outcome = try_setting(setting, data, Path(folder), share, rng)
            found = ", ".join(outcome["differences"]) or "bit-identical"
            tqdm.write(f"{setting.name}: {len(outcome['kills'])} kills, {found}")
            outcomes.append(outcome)
    total = sum(len(outcome["kills"]) for outcome in outcomes)
    print(f"{total} kills in {len(outcomes)} settings")
    if options.write:
        write_json(options.write, outcomes)
    if any(outcome["differences"] for outcome in outcomes):
        raise EATError("some resumed runs differ from the uninterrupted ones")


if __name__ == "__main__":
    main()
