"""Seeds and files of the mini corpora: write what a corpus module has planned."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from eat.utils.files import write_text
from mini_corpora.bank import SAMPLE_RATE

#: Files that are the same for every seed, in a folder per corpus.
TEXTS = Path(__file__).with_name("texts")

#: File path below the corpus folder -> function that renders its samples `[S]`.
AudioPlan = dict[str, Callable[[], np.ndarray]]


def generator(seed: int, name: str, index: int = 0) -> np.random.Generator:
    """Return the random generator of a subset's file, independent of other files."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), index])


def write_corpus(
    name: str, folder: Path, audio: AudioPlan, texts: Mapping[str, str], workers: int
) -> None:
    """Write the corpus `name` into a folder: 16-bit WAV files, then text files.

    Threads are enough, since Fourier transforms and file writing release the GIL. Their
    number does not change the result.
    """
    for parent in {(folder / path).parent for path in [*audio, *texts]}:
        parent.mkdir(parents=True, exist_ok=True)

    def write_audio(path: str) -> None:
        soundfile.write(folder / path, audio[path](), SAMPLE_RATE, subtype="PCM_16")

    pool = ThreadPoolExecutor(workers)
    try:
        list(tqdm(pool.map(write_audio, audio), desc=name, total=len(audio)))
    finally:  # after Ctrl-C or an error, do not write the remaining files
        pool.shutdown(cancel_futures=True)
    for path, text in texts.items():
        write_text(folder / path, text)
    shutil.copytree(TEXTS / name, folder, dirs_exist_ok=True)
