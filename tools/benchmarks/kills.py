"""Kill trainings at random moments, start them again, and compare bit for bit.

    python tools/benchmarks/kills.py [--kills 32] [--seed 0] [--write FILE.json]

Every setting is trained once without interruption, then again under SIGKILL, at random
moments and while a checkpoint is being written. In the end weights, optimizer, logs and
results must be the same to the last bit (fp32 on the CPU; times apart).
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

import psutil
import torch
from safetensors.torch import load_file
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from mini_corpora.audioset import AudioSetSizes, write_audioset  # noqa: E402
from mini_corpora.bank import load_bank  # noqa: E402

RECIPE = ROOT / "recipes" / "AudioSet"
COMMON = (
    "--number_of_epochs 3 --steps_per_epoch 8 --batch_size 4 --log_interval 2 "
    "--ckpt_interval_steps 4 --device cpu --precision fp32 --eval_precision fp32 "
    "--noprogressbar --distributed_backend gloo"
)
TOLD = 30  # lines of a failed run's output
TIMES = {"clips_per_second", "hours", "device_hours", "peak_memory_mb"}
ABOUT = {"settings", "versions"}  # not what came of a run


@dataclass(frozen=True)
class Setting:
    """A way to train: YAML file, options, number of processes."""

    yaml: str
    options: str = ""
    processes: int = 1

    @property
    def name(self) -> str:
        """For people."""
        words = [self.yaml.removesuffix("_mini.yaml"), *self.options.split()]
        return " ".join([*words, f"in {self.processes} process(es)"])

    def command(self, data: Path, run: Path) -> list[str]:
        """The command line that starts and resumes it."""
        launcher = ["-m", "torch.distributed.run", "--standalone"]
        launcher += [f"--nproc_per_node={self.processes}"]
        folders = ["--data_folder", str(data), "--output_folder", str(run)]
        folders += ["--manifest_folder", str(data.parent / "manifests")]
        script = ["train.py", f"hparams/{self.yaml}", *folders]
        start = [*launcher * (self.processes > 1), *script]
        return [sys.executable, *start, *COMMON.split(), *self.options.split()]


PRETRAIN = "--clones 2 --train_manifest pretrain --held_out 0.5"
FINETUNE = "--pretrained none"
SETTINGS = (
    Setting("pretrain_mini.yaml", f"{PRETRAIN} --num_workers 0"),
    Setting("pretrain_mini.yaml", f"{PRETRAIN} --num_workers 2"),
    Setting(
        "pretrain_mini.yaml",
        f"{PRETRAIN} --num_workers 0 --grad_accumulation_factor 2",
    ),
    Setting("pretrain_mini.yaml", f"{PRETRAIN} --num_workers 0", processes=2),
    Setting("finetune_mini.yaml", f"{FINETUNE} --num_workers 0"),
    Setting(
        "finetune_mini.yaml",
        f"{FINETUNE} --num_workers 2 --grad_accumulation_factor 2",
    ),
    Setting("finetune_mini.yaml", f"{FINETUNE} --num_workers 0 --weighted_draws 36"),
    Setting("finetune_mini.yaml", f"{FINETUNE} --num_workers 2", processes=2),
)


def start(setting: Setting, data: Path, run: Path) -> subprocess.Popen:
    """Start or resume a training in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run.mkdir(parents=True, exist_ok=True)
    with open(run / "output.txt", "a", encoding="utf-8") as output:
        return subprocess.Popen(
            setting.command(data, run),
            cwd=RECIPE,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_to_kill(process: subprocess.Popen, run: Path, rng: random.Random) -> str:
    """Wait for a random moment; returns what it was, empty if the run ended before."""
    in_checkpoint = rng.random() < 0.4
    seen = _size(run / "metrics.jsonl")
    deadline: float | None = None
    while process.poll() is None:
        if in_checkpoint:
            if any(run.glob("save/.partial-*")):
                return "while a checkpoint was written"
        elif deadline is None and _size(run / "metrics.jsonl") != seen:
            deadline = time.monotonic() + rng.uniform(0, 1.0)  # it has begun to train
        elif deadline is not None and time.monotonic() > deadline:
            return "while it trained"
        time.sleep(0.0005)
    return ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def train_under_kills(
    setting: Setting, data: Path, run: Path, kills: int, rng: random.Random
) -> list[str]:
    """Train to the end, killed `kills` times at most; returns the moments.

    Raises
    ------
    RuntimeError
        If a training ends with an error.
    """
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
            output = (run / "output.txt").read_text(encoding="utf-8", errors="replace")
            told = "\n".join(output.splitlines()[-TOLD:])
            raise RuntimeError(f"{setting.name}: failed, {run / 'output.txt'}:\n{told}")


def kill_all(process: subprocess.Popen) -> None:
    """Kill a training with its processes and data workers, and wait for their end.

    A launcher gives each of its processes a session of its own: killing the launcher's
    group would leave them at work.
    """
    launcher = psutil.Process(process.pid)
    launcher.suspend()  # so that it starts no other meanwhile
    family = [launcher, *launcher.children(recursive=True)]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    while any(map(is_alive, family)):
        time.sleep(0.01)


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that ended and that nobody asked after does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def differences(whole: Path, killed: Path) -> Iterator[str]:
    """What differs between two finished runs, times apart."""
    for name in ("metrics.jsonl", "results.json"):
        if _timeless(whole / name) != _timeless(killed / name):
            yield name
    if (whole / "train_log.txt").read_bytes() != (
        killed / "train_log.txt"
    ).read_bytes():
        yield "train_log.txt"
    ours, theirs = (
        load_file(run / "model" / "model.safetensors") for run in (whole, killed)
    )
    yield from (f"model: {k}" for k in ours if not torch.equal(ours[k], theirs[k]))
    ours, theirs = (_newest_optimizer(run) for run in (whole, killed))
    for index, state in ours["state"].items():
        for key, value in state.items():
            if not torch.equal(value, theirs["state"][index][key]):
                yield f"optimizer: {key} of parameter {index}"


def _timeless(path: Path) -> list[dict]:
    """Records of a log or results file without times, folders and versions."""
    text = path.read_text(encoding="utf-8")
    records = (
        map(json.loads, text.splitlines())
        if path.suffix == ".jsonl"
        else [json.loads(text)]
    )
    kept = []
    for record in records:
        record = {k: v for k, v in record.items() if k not in TIMES | ABOUT}
        cost = record.get("cost", {})
        record["cost"] = {k: v for k, v in cost.items() if k not in TIMES}
        kept.append(record)
    return kept


def _newest_optimizer(run: Path) -> dict:
    newest = max((run / "save").glob("CKPT*"), key=lambda path: path.stat().st_mtime)
    return torch.load(newest / "optimizer.ckpt", weights_only=True)


def try_setting(
    setting: Setting, data: Path, work: Path, kills: int, rng: random.Random
) -> dict[str, object]:
    """Train with and without kills; returns the moments and what differs."""
    whole, killed = work / "whole", work / "killed"
    for run in (whole, killed):
        shutil.rmtree(run, ignore_errors=True)
    train_under_kills(setting, data, whole, 0, rng)
    moments = train_under_kills(setting, data, killed, kills, rng)
    found = list(differences(whole, killed))
    return {"setting": setting.name, "kills": moments, "differences": found}


def main() -> None:
    """Try all settings, print and write what came of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=32, help="over all settings")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--write", type=Path, help="JSON file for the outcome")
    options = parser.parse_args()
    rng, outcomes = random.Random(options.seed), []
    share = -(-options.kills // len(SETTINGS))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "AudioSet"
        data.mkdir()
        sizes = AudioSetSizes(48, 48, 12)
        write_audioset(load_bank(ROOT / "tools" / "bank"), data, 0, sizes, workers=2)
        for setting in tqdm(SETTINGS, unit="setting", disable=None):
            outcome = try_setting(setting, data, Path(folder), share, rng)
            told = ", ".join(outcome["differences"]) or "the same to the last bit"
            tqdm.write(f"{setting.name}: {len(outcome['kills'])} kills, {told}")
            outcomes.append(outcome)
    total = sum(len(outcome["kills"]) for outcome in outcomes)
    print(f"{total} kills in {len(outcomes)} settings")
    if options.write:
        options.write.write_text(
            json.dumps(outcomes, indent=1) + "\n", encoding="utf-8"
        )
    if any(outcome["differences"] for outcome in outcomes):
        sys.exit("kills: not all runs ended as if uninterrupted")


if __name__ == "__main__":
    main()
