"""Runs the study's pre-trainings and measures each when it has finished."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from evidence.clips import LabeledClips
from evidence.results import measure, write_result
from evidence.studies import JobFactory, Row
from paper_tables.jobs import Job
from paper_tables.runner import Runner


class StudyRunner(Runner):
    """Trains, then probes; finished runs and existing results are kept."""

    def __init__(
        self, factory: JobFactory, results: Path, runs: list[tuple[Row, int]]
    ) -> None:
        super().__init__()
        self.factory = factory
        self.results = results
        self.rows = {row.run_name(seed): (row, seed) for row, seed in runs}

    def run(self, job: Job) -> Job:
        """Train a run unless it is finished, and write its result unless it exists."""
        super().run(job)
        path = self.results / f"{job.name}.json"
        if not path.exists():
            row, seed = self.rows[job.name]
            factory = self.factory
            clips = LabeledClips(
                factory.manifests, factory.corpus, factory.labeled_clips
            )
            result = measure(job, row, seed, clips)
            write_result(path, result)
            point = result["curve"][-1]
            tqdm.write(f"  {job.name}: linear probe {point['linear']:.3f} mAP")
        return job
