"""Runs jobs, several at a time: each only once, each with a progress bar."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eat.utils.files import write_json
from paper_tables.jobs import JOB_FILE, Job, JobError, in_order

POLL_SECONDS = 0.5


class Runner:
    """Runs single jobs; several threads may use it at the same time."""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen] = []

    def run(self, job: Job) -> Job:
        """Run a job unless it has finished before, and wait for it.

        If it fails, raises `JobError` with the last line of its output.
        """
        earlier = job.finished()
        # With another command the run is not this one: train.py compares the settings.
        if earlier is not None and earlier["command"] == job.command:
            tqdm.write(f"  {job.name}: already finished")
            return job
        job.folder.mkdir(parents=True, exist_ok=True)
        results = job.folder / "results.json"
        before, started = _read_bytes(results), time.perf_counter()
        usage = self._train(job)
        scores = main_metrics(job)  # fails if the run has written no results
        if earlier is not None and before == _read_bytes(results):
            # The command differs but the run does not, so its record is kept.
            tqdm.write(f"  {job.name}: already finished, with another command")
            return job
        seconds = round(time.perf_counter() - started, 1)
        record = {
            "seconds": seconds,
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_mb": usage.ru_maxrss // 1024,
            "command": job.command,
        }
        write_json(job.folder / JOB_FILE, record)
        tqdm.write(f"  {job.name}: {seconds:.0f} s  {scores}")
        return job

    def _train(self, job: Job) -> resource.struct_rusage:
        """Run the job's process with a progress bar; returns what it used."""
        output = job.folder / "output.txt"
        seconds = 0.5 if sys.stderr.isatty() else 30
        style: dict[str, Any] = {"unit": "step", "leave": False, "dynamic_ncols": True}
        bar = tqdm(desc=f"{job.name:36}", total=job.steps, mininterval=seconds, **style)
        with open(output, "a", encoding="utf-8") as log, bar:
            words = [sys.executable, *job.command]
            child = subprocess.Popen(words, cwd=job.recipe, stdout=log, stderr=log)
            self.children.append(child)
            while not (ended := os.wait4(child.pid, os.WNOHANG))[0]:
                time.sleep(POLL_SECONDS)
                bar.update(steps_done(job.folder) - bar.n)
        _, status, usage = ended
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            last = output.read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise JobError(f"{job.name} failed: {' '.join(last)} (log: {output})")
        return usage

    def stop(self) -> None:
        """Terminate all running processes; they resume when run again."""
        for child in self.children:
            if child.returncode is None:
                child.terminate()


def run_all(jobs: Iterable[Job], runner: Runner, max_jobs: int) -> None:
    """Run jobs and what they need, `max_jobs` at a time; finished ones are skipped.

    A failed job stops only those that need it. At the end `JobError` is raised, which
    names each job that failed.
    """
    waiting = in_order(jobs)
    done: set[Job] = set()
    failures: dict[Job, str] = {}
    running: dict[Future, Job] = {}
    with ThreadPoolExecutor(max_jobs) as pool:
        try:
            while waiting or running:
                for job in waiting:
                    if any(needed in failures for needed in job.needs):
                        failures[job] = f"{job.name}: not run, a job it needs failed"
                waiting = [job for job in waiting if job not in failures]
                ready = [job for job in waiting if done.issuperset(job.needs)]
                for job in ready[: max_jobs - len(running)]:
                    waiting.remove(job)
                    running[pool.submit(runner.run, job)] = job
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    job = running.pop(future)
                    if error := future.exception():
                        failures[job] = str(error)
                        tqdm.write(f"  {error}")
                    else:
                        done.add(job)
        except BaseException:
            runner.stop()
            raise
    if failures:
        raise JobError("; ".join(failures.values()))


def steps_done(folder: Path) -> int:
    """Return the last optimizer step in a run's log, 0 before the first."""
    try:
        last = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        return json.loads(last)["step"]
    except (OSError, IndexError, json.JSONDecodeError):
        return 0


def main_metrics(job: Job) -> str:
    """Return a finished run's main metrics as text."""
    last = job.results()["last"]
    keys = ("mAP", "accuracy", "knn_mAP")
    return "  ".join(f"{key} {last[key]:.3f}" for key in keys if key in last)


def _read_bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
