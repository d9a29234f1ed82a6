"""Waiting for data workers, and what is said when they fail."""

import gc
import os
import signal
import sys
import time
from functools import partial
from itertools import islice
from multiprocessing import active_children
from multiprocessing.process import BaseProcess

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from eat.data import workers
from eat.data.dataset import audio_dataset, collate
from eat.data.manifest import ManifestRow, write_manifest
from eat.data.workers import ClipLoader, worker_errors
from eat.errors import EATError, ExperimentError, Interrupted
from eat.utils.signals import ignore_signals


@pytest.fixture
def clips(tmp_path):
    """Six clips of a tenth of a second."""
    rows = [ManifestRow(f"c{i}", 0.1, f"{i}.wav") for i in range(6)]
    for i, row in enumerate(rows):
        soundfile.write(tmp_path / row.wav, np.full(1600, i / 10), 16000)
    write_manifest(tmp_path / "m.csv", rows)
    return audio_dataset(tmp_path / "m.csv", tmp_path, None, 1)


def loader(clips, count=2, **options):
    options = {"collate_fn": collate, "worker_init_fn": ignore_signals, **options}
    return ClipLoader(clips, batch_size=2, num_workers=count, **options)


def slow(read, path, seconds):
    time.sleep(seconds)
    return read(path)


def die(number, path):
    os.kill(os.getpid(), number)
    time.sleep(5)


@pytest.mark.parametrize(
    "context",
    [
        "fork",
        pytest.param("spawn", marks=pytest.mark.slow),
        pytest.param("forkserver", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_the_batches_of_torch(clips, context, count):
    if context not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {context}")
    if context == "forkserver" and count == 2:
        pytest.skip("as with one")
    torch.rand(300, 300) @ torch.rand(300, 300)  # has started threads
    want = list(DataLoader(clips, batch_size=2, collate_fn=collate))
    found = list(loader(clips, count, multiprocessing_context=context))
    assert [batch.ids for batch in found] == [batch.ids for batch in want]
    assert all(torch.equal(a.wav, b.wav) for a, b in zip(found, want, strict=True))


def test_slow_workers_lose_no_batch(clips, monkeypatch):
    """Batches that come after several polls are complete and in order."""
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.02)
    clips.read = partial(slow, clips.read, seconds=0.1)
    found = list(loader(clips, 2))
    assert [batch.ids for batch in found] == [["c0", "c1"], ["c2", "c3"], ["c4", "c5"]]


@pytest.mark.slow
def test_persistent_workers_are_replaced_only_after_an_interruption(clips, monkeypatch):
    # Torch ends them in order here; a killed one raises an error in any place.
    monkeypatch.setattr(BaseProcess, "terminate", lambda worker: None)
    found = loader(clips, 2, persistent_workers=True)
    numbers = []
    for stop in (None, 1, None):
        ids = [batch.ids for batch in islice(found, stop)]
        assert ids == [["c0", "c1"], ["c2", "c3"], ["c4", "c5"]][:stop]
        gc.collect()
        numbers.append({child.pid for child in active_children()})
    first, interrupted, last = numbers
    assert len(first) == len(last) == 2
    assert not interrupted and not first & last


@pytest.mark.slow
def test_waiting_is_interrupted(clips, monkeypatch):
    monkeypatch.setattr(workers, "WAIT_SECONDS", 1)
    clips.read = partial(slow, clips.read, seconds=60)

    def stop():
        raise Interrupted("stopped", signal.SIGTERM)

    start = time.monotonic()
    with pytest.raises(Interrupted):
        next(iter(loader(clips, while_waiting=stop)))
    assert time.monotonic() - start < 8


@pytest.mark.slow
def test_a_hang_names_the_clips(clips, monkeypatch):
    monkeypatch.setattr(workers, "WORKER_TIMEOUT", 1)
    clips.read = partial(slow, clips.read, seconds=60)
    with pytest.raises(ExperimentError, match="c0, c2"), worker_errors(clips):
        next(iter(loader(clips)))


@pytest.mark.parametrize(
    ("number", "named"),
    [
        (signal.SIGBUS, "--shm-size"),
        (signal.SIGKILL, "memory.*--num_workers"),
        (signal.SIGSEGV, "c0"),
    ],
)
def test_the_cause_of_death_is_named(clips, number, named):
    clips.read = partial(die, number)
    with pytest.raises(ExperimentError, match=named) as error, worker_errors(clips):
        list(loader(clips, 1))
    assert "c0" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (OSError(24, "Too many open files"), "ulimit -n"),
        (OSError(11, "Resource temporarily unavailable"), "--num_workers"),
        (OSError(30, "Read-only file system"), "/dev/shm"),
    ],
)
def test_workers_that_cannot_be_started(clips, monkeypatch, error, named):
    def refuse(self):
        raise error

    monkeypatch.setattr(DataLoader, "__iter__", refuse)
    with pytest.raises(ExperimentError, match=named) as raised:
        iter(loader(clips, 3))
    assert "num_workers 3" in str(raised.value)


FEW_FILES = """
import resource, sys
from pathlib import Path
sys.path.insert(0, "tests/unit/data")
import test_workers as t
from eat.errors import EATError
clips = t.audio_dataset(sys.argv[1] + "/m.csv", sys.argv[1], None, 1)
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
try:
    print(len(list(t.loader(clips, int(sys.argv[3])))))
except EATError as error:
    print(error)
"""


def test_failed_start_leaves_no_traceback(clips, monkeypatch):
    """Torch's iterator, half built by then, would print one when it is deleted."""
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    started = []

    def start(self):
        if started:
            raise OSError(11, "Resource temporarily unavailable")
        started.append(self)

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", start)
    with pytest.raises(ExperimentError):
        iter(loader(clips))
    gc.collect()
    assert not printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "count", "outcome"), [(64, 2, "3"), (24, 9, "ulimit")]
)
def test_few_open_files(run_code, clips, tmp_path, limit, count, outcome):
    """It works, or is one line."""
    printed, _ = run_code(FEW_FILES, tmp_path, limit, count)
    assert outcome in printed and len(printed.splitlines()) == 1


def test_more_workers_than_cores(clips, caplog, monkeypatch, recwarn):
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    workers._warn_of_many.cache_clear()
    for count in (0, 1, 1):
        loader(clips, count)
    (record,) = caplog.records
    assert "num_workers 1" in record.getMessage() and not recwarn.list


def test_errors_of_clips_remain_what_they_are(clips):
    clips.read = partial(slow, None, seconds=0)
    with pytest.raises(EATError, match="clip c0"), worker_errors(clips):
        list(loader(clips))
