"""Cost of a manifest of millions of clips: our loader and SpeechBrain's.

    python tools/benchmarks/manifest.py [--rows 2000000] [--json]

Measures the seconds to load, the growth of the process's peak memory, and the growth of
a forked data worker's own memory while it reads 200,000 random rows (the kernel's
Private_Dirty, without pages of mapped files; Linux only). Each loader runs in its own
process, ours twice: when it makes the manifest's Arrow file, and when it maps it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from eat.data.manifest import ManifestRow, write_manifest
from eat.errors import exit_on_error
from eat.report.markdown import markdown_table
from eat.utils.arguments import integer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.millions import own_mb  # noqa: E402

READS = 200_000
LOADERS = {
    "ours": "CompactManifest, ours, first start",
    "ours_again": "CompactManifest, ours, later starts",
    "speechbrain": "DynamicItemDataset, SpeechBrain",
}


def write_clips(path: Path, rows: int) -> None:
    """Write a manifest like AudioSet's."""
    rng = random.Random(0)
    labels = [f"/m/0{i:05x}" for i in range(527)]

    def clip(i: int) -> ManifestRow:
        wav = f"audio/unbalanced_train/part{i % 41:02d}/Y{i:010x}.flac"
        chosen = rng.sample(labels, rng.choice((1, 2, 2, 3)))
        return ManifestRow(f"Y{i:010x}", 10.0, wav, tuple(chosen))

    write_manifest(path, map(clip, range(rows)))


def load_ours(path: Path) -> Callable[[int], object]:
    """Load the manifest; return a function that reads a row."""
    from eat.data.compact_manifest import CompactManifest

    rows = CompactManifest(path)
    return lambda i: (rows.ids[i], rows.wavs[i], rows.labels[i])


def load_speechbrain(path: Path) -> Callable[[int], object]:
    """Load the manifest as SpeechBrain does; return a function that reads a row."""
    from speechbrain.dataio.dataset import DynamicItemDataset

    data = DynamicItemDataset.from_csv(str(path), replacements={"data_root": "/data"})
    data.set_output_keys(["id", "wav", "labels"])
    return lambda i: data[i]


def peak_mb() -> float:
    """Return the peak memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def worker_growth(read: Callable[[int], object], rows: int) -> float:
    """Return the growth of a forked process that reads random rows, in MiB."""
    receive, send = os.pipe()
    if os.fork() == 0:
        rng, before = random.Random(1), own_mb(os.getpid())
        for _ in range(min(READS, 10 * rows)):
            read(rng.randrange(rows))
        os.write(send, f"{own_mb(os.getpid()) - before:.1f}".encode())
        os._exit(0)
    os.wait()
    return float(os.read(receive, 32))


def measure(loader: str, path: Path, rows: int) -> dict[str, float]:
    """Load the manifest in this process and read it in a forked one."""
    load = load_speechbrain if loader == "speechbrain" else load_ours
    load(path.with_name("few.csv"))  # so that imports are not measured
    before, started = peak_mb(), time.perf_counter()
    read = load(path)
    seconds = time.perf_counter() - started
    found = {"seconds": round(seconds, 2), "memory_mb": round(peak_mb() - before, 1)}
    return found | {"worker_mb": worker_growth(read, rows)}


@exit_on_error()
def main() -> None:
    """Measure each loader in a new process and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=integer(1), default=2_000_000)
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    parser.add_argument("--ours_only", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        loader, path = options.measure
        print(json.dumps(measure(loader, Path(path), options.rows)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.csv"
        write_clips(path, options.rows)
        write_clips(path.with_name("few.csv"), 10)
        script = [sys.executable, __file__, "--rows", str(options.rows), "--measure"]
        found = {}
        for loader in [*LOADERS][:2] if options.ours_only else LOADERS:
            answer = subprocess.check_output([*script, loader, str(path)], text=True)
            found[loader] = json.loads(answer.splitlines()[-1])
    if options.json:
        print(json.dumps(found))
        return
    rows = [{"loader": LOADERS[name], **metrics} for name, metrics in found.items()]
    print(markdown_table(rows, list(rows[0])))


if __name__ == "__main__":
    main()
