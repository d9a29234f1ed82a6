"""What the writers of the mini corpora share: seeds, audio files, progress."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from tqdm import tqdm

from mini_corpora.bank import SAMPLE_RATE

Job = TypeVar("Job")
Result = TypeVar("Result")


def generator(seed: int, name: str, index: int = 0) -> np.random.Generator:
    """Return the generator of one file, which depends on no other file.

    Parameters
    ----------
    seed : int
        The corpora's seed.
    name : str
        Corpus and subset, such as ``"AudioSet/eval"``.
    index : int
        The file's place in the subset.
    """
    return np.random.default_rng([seed, zlib.crc32(name.encode()), index])


def write_wav(path: Path, audio: np.ndarray) -> None:
    """Write ``[S]`` samples in [-1, 1] as a 16 kHz mono 16-bit WAV file."""
    soundfile.write(path, audio, SAMPLE_RATE, subtype="PCM_16")


def write_text(path: Path, lines: list[str]) -> None:
    """Write lines of text, the last one ended too."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, name: str
) -> list[Result]:
    """Do all jobs behind a progress bar and return their results in order.

    Threads suffice, since Fourier transforms and file writing release Python's lock.

    Parameters
    ----------
    work : callable
        Done for each job; must not depend on the order of the jobs.
    jobs : sequence
        The jobs.
    workers : int
        Threads at a time.
    name : str
        What the progress bar says.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        return list(tqdm(pool.map(work, jobs), desc=name, total=len(jobs)))
    finally:  # Ctrl-C or a full disk ends the run at once, not after all jobs.
        pool.shutdown(cancel_futures=True)
