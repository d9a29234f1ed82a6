"""Pack the clips of manifests into tar shards, readable by WebDataset and by index.

    python tools/pack_shards.py MANIFEST [MANIFEST ...] --data_folder DIR --output DIR
                                [--clips_per_shard 1000] [--max_seconds S]
                                [--workers N] [--part i/N | --merge N]
    python tools/pack_shards.py --verify --output DIR

Each audio file is packed once, as 16 kHz mono FLAC, even if several manifests list it.
When all shards are complete, a manifest of shard addresses is written for each of the
given ones. Re-run the same command to resume. To use many machines, run the same
command on each with --part 1/16, --part 2/16 and so on; whichever ends last writes the
manifests. --merge 16 names the parts that are missing, or writes the manifests.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

from eat.data import shard_writer
from eat.data.prepare import make_save_folder
from eat.data.shard_writer import ClipUnion, ShardTask, is_packed, pack_shard
from eat.errors import EATError, ManifestError, exit_on_error, printable
from eat.utils.arguments import integer, number
from eat.utils.files import remove_temporaries
from eat.utils.parts import add_part_options


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("manifests", nargs="*", type=Path, metavar="MANIFEST")
    add("--data_folder", help="corpus folder")
    add("--output", type=Path, required=True, help="folder for the shards")
    add("--clips_per_shard", type=integer(1), default=1000)
    seconds = number(1 / shard_writer.RATE, 100_000)
    add("--max_seconds", type=seconds, help="truncate longer clips")
    cores = os.cpu_count() or 1
    add("--workers", type=integer(1, 1024), default=cores, help="number of processes")
    add_part_options(parser)
    add("--verify", action="store_true", help="verify the checksums")
    options = parser.parse_args(argv)
    if not options.verify and not (options.manifests and options.data_folder):
        parser.error("give manifests and --data_folder, or --verify")
    return options


def _init_worker() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Exit when the main process does, even if it was killed."""
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def pack_all(tasks: Iterable[ShardTask], clips: int, workers: int) -> None:
    """Pack the shards that are not packed yet, in parallel, with a progress bar."""
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive forks
    with (
        ProcessPoolExecutor(workers, spawn, initializer=_init_worker) as pool,
        tqdm(total=clips, unit="clip", disable=None) as bar,
    ):
        running: dict[Future, int] = {}

        def wait_until(at_most: int) -> None:
            while len(running) > at_most:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    bar.update(running.pop(future))
                    future.result()

        try:
            for task in tasks:
                if is_packed(task):
                    bar.update(len(task.clips))
                else:
                    running[pool.submit(pack_shard, task)] = len(task.clips)
                wait_until(at_most=2 * workers)  # not millions of clips in the queue
            wait_until(at_most=0)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def pack(options: argparse.Namespace) -> None:
    """Pack one part; write the manifests if all parts are complete."""
    sources, part = options.manifests, options.part
    _check_folders(sources, options.data_folder, options.output)
    clips, size = ClipUnion(sources), options.clips_per_shard
    make_save_folder(options.output)
    remove_temporaries(options.output)

    def tasks() -> Iterator[ShardTask]:
        folders = (options.output, options.data_folder)
        return shard_writer.shard_tasks(clips, *folders, size, options.max_seconds)

    firsts = part.share(range(0, len(clips), size))
    clips_in_part = sum(min(size, len(clips) - first) for first in firsts)
    if part.number:
        own = islice(tasks(), part.number - 1, None, part.total)
        pack_all(own, clips_in_part, options.workers)
    if missing := part.missing(shard_writer.missing_shards(tasks())):
        if not part.number:
            raise ManifestError(f"{options.output}: {missing}")
        print(f"part {part.number} of {part.total} is complete; {missing}")
        return
    skipped = shard_writer.write_manifests(clips, tasks(), sources, options.output)
    names = ", ".join(f"{name}.csv" for name in clips.names)
    print(printable(f"{len(clips) - skipped} clips in {options.output}: {names}"))
    if skipped:
        skips = options.output / "skipped.csv"
        print(printable(f"{skipped} clips skipped, see {skips}"))
    for kind, found in shard_writer.read_warnings(tasks()).items():
        count, (clip, warning) = len(found), found[0]
        text = printable(f"{count} clips {kind}, e.g. {clip}: {warning}")
        print(f"warning: {text}", file=sys.stderr)


def _check_folders(sources: Sequence[Path], data_folder: str, output: Path) -> None:
    """Raise `ManifestError` if the corpus is missing or would be written to."""
    if not Path(data_folder).is_dir():
        raise ManifestError(f"{data_folder}: no such folder (check --data_folder)")
    for path in sources:
        if path.resolve().parent == output.resolve():
            raise ManifestError(
                f"{output}: contains the manifests to pack, which would be "
                "overwritten (choose another --output)"
            )
    if Path(data_folder).resolve() == output.resolve():
        raise ManifestError(f"{output}: is the corpus folder (choose another --output)")


def verify(folder: Path) -> None:
    """Print the corrupt shards; exit with an error if there are any."""
    faults = list(shard_writer.corrupt_shards(folder))
    print("\n".join(map(printable, faults)) or "all shards are intact")
    if faults:
        raise ManifestError(f"{folder}: {len(faults)} corrupt shards (see above)")


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> None:
    """Pack or verify; errors are one line."""
    options = _parse(argv)
    try:
        verify(options.output) if options.verify else pack(options)
    except BrokenProcessPool:
        raise EATError(
            "a worker died, maybe out of memory (use fewer --workers, then re-run the "
            "same command to resume)"
        ) from None


if __name__ == "__main__":
    main()
