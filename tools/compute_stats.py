"""Find the normalization constants of a corpus: mean and std of its log-mel.

Usage: python tools/compute_stats.py MANIFEST --data_folder DIR [--clips 2000]

MANIFEST is a CSV file written by a prepare script. The front end computes
``(x - mean) / (2 * std)``, where std is the standard deviation printed here.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from tqdm import tqdm

from eat.audio.checks import kind_of, signal_warnings
from eat.audio.frontend import SAMPLE_RATE, WINDOW
from eat.audio.statistics import LogMelStatistics
from eat.data.dataset import audio_dataset
from eat.data.permutation import Permutation
from eat.errors import AudioError, exit_on_error
from eat.utils.arguments import integer, number


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("manifest", help="CSV file written by a prepare script")
    add("--data_folder", required=True, help="folder of the recordings")
    add(
        "--clips", type=integer(1), default=2000, help="number of randomly chosen clips"
    )
    add("--seed", type=integer(0), default=0, help="random seed")
    seconds, used = number(WINDOW / SAMPLE_RATE, 100_000), "use this much of each clip"
    add("--max_seconds", type=seconds, default=10.26, help=used)
    return parser.parse_args(argv)


def waveforms(
    arguments: argparse.Namespace,
) -> Iterator[tuple[torch.Tensor, tuple[str, ...]] | AudioError]:
    """Read randomly chosen clips, with warnings; or the error of an unreadable one."""
    data = audio_dataset(
        arguments.manifest, arguments.data_folder, None, arguments.max_seconds
    )
    chosen = np.arange(min(arguments.clips, len(data)))
    chosen = Permutation(len(data), arguments.seed)[chosen]
    for index in tqdm(chosen.tolist(), unit="clip", disable=None):
        try:
            clip = data[index]["sig"]
            yield clip, signal_warnings(clip, name=data.id(index))
        except AudioError as error:
            yield error


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> None:
    """Print mean, std and the options that set them; name the unreadable files."""
    arguments, statistics, used, errors = _parse(argv), LogMelStatistics(), 0, []
    kinds: Counter[str] = Counter()
    for read in waveforms(arguments):
        if isinstance(read, AudioError):
            errors.append(read)
        else:
            used += 1
            clip, warnings = read
            kinds.update(map(kind_of, warnings))
            statistics.update(clip[None], torch.tensor([len(clip)]))
    for error in errors:
        print(f"skipped: {error}", file=sys.stderr)
    for kind, count in kinds.items():
        print(f"warning: {count} clips are {kind}", file=sys.stderr)
    print(f"{used} clips, {statistics.frames} frames, {len(errors)} clips skipped")
    if not 0 < statistics.std < math.inf:
        sys.exit("error: all clips are silent or unreadable (check --data_folder)")
    print(f"mean {statistics.mean:.4f}, standard deviation {statistics.std:.4f}")
    print(f"--norm_mean {statistics.mean:.3f} --norm_std {statistics.std:.3f}")


if __name__ == "__main__":
    main()
