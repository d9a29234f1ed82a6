"""Runs jobs in the order of their needs, several at a time."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from tqdm import tqdm

from paper_tables.jobs import Job, JobError, Runner


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """Each job once, after all that it needs."""
    found: dict[Job, None] = {}

    def add(job: Job) -> None:
        for needed in job.needs:
            add(needed)
        found.setdefault(job)

    for job in jobs:
        add(job)
    return list(found)


def run_all(jobs: Iterable[Job], runner: Runner, at_a_time: int) -> None:
    """Run jobs and what they need; one that fails does not keep the others back.

    Parameters
    ----------
    jobs
        What to run; finished ones are skipped.
    runner
        Runs one.
    at_a_time
        Processes at a time.

    Raises
    ------
    JobError
        At the end, if any failed, with a line for each.
    """
    waiting, done, failures = in_order(jobs), set(), {}
    running: dict[Future, Job] = {}
    with ThreadPoolExecutor(at_a_time) as pool:
        try:
            while waiting or running:
                lost = [job for job in waiting if failures.keys() & set(job.needs)]
                for job in lost:
                    failures[job] = f"{job.name}: not run, it needs one that failed"
                ready = [j for j in waiting if j not in lost and done >= set(j.needs)]
                starting = ready[: at_a_time - len(running)]
                waiting = [j for j in waiting if j not in lost and j not in starting]
                running |= {pool.submit(runner.run, job): job for job in starting}
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
        raise JobError("\n".join(failures.values()))
