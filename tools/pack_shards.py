"""Pack the clips of manifests into tar shards, readable by WebDataset and by index.

    python tools/pack_shards.py MANIFEST [MANIFEST ...] --data_folder DIR --output DIR
                                [--clips_per_shard 1000] [--max_seconds S]
                                [--workers N] [--part 1/1]
    python tools/pack_shards.py --verify --output DIR

Each sound file is packed once, as 16 kHz mono FLAC, however many of the manifests name
it. When all shards are there a manifest of addresses is written for each given one.
The same command goes on where an earlier one was interrupted. On many machines: the
same command with --part 1/16, --part 2/16 and so on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

from eat.data.prepare import make_save_folder
from eat.data.shard_writer import (
    ClipUnion,
    ShardTask,
    damaged_shards,
    is_packed,
    missing_shards,
    pack_shard,
    shard_tasks,
    write_manifests,
)
from eat.errors import ManifestError


def _part(text: str) -> tuple[int, int]:
    part, parts = map(int, text.split("/"))
    if not 1 <= part <= parts:
        raise ValueError
    return part, parts


_part.__name__ = "part, 1/16 to 16/16,"  # argparse says: invalid ... value


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", nargs="*", type=Path, metavar="MANIFEST")
    parser.add_argument("--data_folder", help="folder of the recordings")
    parser.add_argument("--output", type=Path, required=True, help="folder for shards")
    parser.add_argument("--clips_per_shard", type=int, default=1000)
    parser.add_argument("--max_seconds", type=float, help="cut longer clips")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--part", type=_part, default=(1, 1), help="of a job array")
    parser.add_argument("--verify", action="store_true", help="compare checksums")
    options = parser.parse_args(argv)
    if not options.verify and not (options.manifests and options.data_folder):
        parser.error("give manifests and --data_folder, or --verify")
    return options


def _begin_worker() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Or a worker whose main process was killed would live on."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this machine were writing."""
    for path in folder.glob(f".shard-*.tar.{socket.gethostname()}-*.part"):
        process = path.name.removesuffix(".part").rpartition("-")[2]
        if not Path("/proc", process).exists():
            path.unlink(missing_ok=True)


def pack_all(tasks: Iterable[ShardTask], clips: int, workers: int) -> None:
    """Pack shards in parallel, with a progress bar; those that are there are kept."""
    with (
        # Not forked: torch's threads do not survive that.
        ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            initializer=_begin_worker,
        ) as pool,
        tqdm(total=clips, unit="clip", disable=None) as bar,
    ):
        running: dict[Future, int] = {}

        def finish(at_most: int) -> None:
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
                finish(at_most=2 * workers)  # not millions of clips in one queue
            finish(at_most=0)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def pack(options: argparse.Namespace) -> None:
    """Pack this part; write the manifests if it was the last."""
    make_save_folder(options.output)
    _remove_leftovers(options.output)
    sources = options.manifests
    clips = ClipUnion(sources)
    (part, parts), size = options.part, options.clips_per_shard
    if any(path.resolve().parent == options.output.resolve() for path in sources):
        raise ManifestError(
            f"{options.output}: holds the manifests to be packed, which new ones would "
            "replace (choose another --output)"
        )

    def tasks() -> Iterator[ShardTask]:
        folders = (options.output, options.data_folder)
        return shard_tasks(clips, *folders, size, options.max_seconds)

    mine = sum(
        min(size, len(clips) - first)
        for first in range((part - 1) * size, len(clips), parts * size)
    )
    pack_all(islice(tasks(), part - 1, None, parts), mine, options.workers)
    if missing := missing_shards(tasks()):
        print(f"part {part} of {parts} is packed, {missing} shards are missing")
        return
    skipped = write_manifests(clips, tasks(), sources, options.output)
    names = ", ".join(f"{name}.csv" for name in clips.names)
    print(f"{len(clips) - skipped} clips in {options.output}: {names}")
    if skipped:
        print(f"{skipped} clips left out, see {options.output / 'skipped.csv'}")


def verify(folder: Path) -> None:
    """Name the shards that are not as they were written."""
    complaints = list(damaged_shards(folder))
    for complaint in complaints:
        print(complaint)
    if complaints:
        sys.exit(f"error: {len(complaints)} shards are damaged")
    print("all shards are as they were written")


def main(argv: Sequence[str] | None = None) -> None:
    """Pack or verify; errors in one line."""
    options = _parse(argv)
    try:
        verify(options.output) if options.verify else pack(options)
    except ManifestError as error:
        sys.exit(f"error: {error}")
    except BrokenProcessPool:
        sys.exit("error: a process died, memory full? (the same command goes on)")
    except OSError as error:
        sys.exit(
            f"error: {error.filename or options.output}: {error.strerror} "
            "(mend it; the same command goes on)"
        )


if __name__ == "__main__":
    main()
