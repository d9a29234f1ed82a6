"""Batches arrive whatever room shared memory has."""

import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from eat.data import dataset, shared_memory
from eat.data.dataset import Batch, collate
from eat.data.shared_memory import Shared

MB = 2**20


class Clips(torch.utils.data.Dataset):
    """Clips of a quarter of a megabyte, each full of its own number."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        target = torch.full((3,), float(index))
        return {
            "id": str(index),
            "sig": torch.full((60000 + index,), float(index)),
            "target": target,
        }


def batches_of(keep=True, **options):
    """Load all clips and check the batches.

    Prefetching consumers keep batches for a while. Return how each of them was sent:
    by value, or as the number of a buffer.
    """
    options = {"num_workers": 2, "collate_fn": collate, **options}
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        sent = recorded(patch)
        for batch in DataLoader(Clips(), 4, **options):
            first = int(batch.ids[0])
            numbers = torch.arange(first, first + 4.0)
            assert isinstance(batch, Batch) and batch.lengths.tolist() == [
                *(60000 + i for i in range(first, first + 4))
            ]
            kept.append((batch, numbers))
            for batch, numbers in kept:
                check(batch, numbers)
            if not keep:
                kept.clear()
                del batch
    return sent


def check(batch, numbers):
    assert batch.ids == [str(int(n)) for n in numbers]
    assert torch.equal(batch.labels, numbers[:, None].expand(4, 3))
    for wav, length, number in zip(batch.wav, batch.lengths, numbers, strict=True):
        assert torch.equal(wav[:length], number.expand(length))
        assert not wav[length:].any()


def recorded(patch):
    """Record how batches are sent."""
    sent = []

    def receive(array):
        sent.append(array if isinstance(array, Shared) else None)
        return shared_memory.from_shared(array)

    patch.setattr(dataset, "from_shared", receive)
    return sent


def room(total, free):
    return lambda path: SimpleNamespace(
        f_frsize=4096, f_blocks=total // 4096, f_bavail=free // 4096
    )


@pytest.mark.parametrize(
    ("total", "free", "batch", "expected"),
    [
        (64 * MB, 64 * MB, 31 * MB, True),  # Docker's default, the paper's batch
        (64 * MB, 33 * MB, 31 * MB, False),
        (1024 * MB, 400 * MB, 31 * MB, True),
        (1024 * MB, 280 * MB, 31 * MB, False),
        (0, 0, 1, False),
    ],
)
def test_a_reserve_stays_free(monkeypatch, total, free, batch, expected):
    monkeypatch.setattr(os, "statvfs", room(total, free))
    assert shared_memory.has_room(batch) == expected


@pytest.mark.parametrize(
    "context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)]
)
def test_batches_come_through_shared_memory(context):
    if context not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {context}")
    sent = batches_of(multiprocessing_context=context)
    assert all(sent) and all(place.buffer is not None for place in sent)


@pytest.mark.parametrize("options", [{}, {"persistent_workers": True}])
def test_buffers_are_reused_once_their_batch_is_dropped(options):
    """With one worker there is one in training, and two are ahead."""
    clips = DataLoader(Clips(), 4, num_workers=1, collate_fn=collate, **options)
    with pytest.MonkeyPatch.context() as patch:
        sent = recorded(patch)
        for _ in range(4):
            for batch in clips:
                check(batch, torch.arange(int(batch.ids[0]), int(batch.ids[-1]) + 1.0))
                batch.wav.add_(1)  # as augmentation may
    assert len(sent) == 24
    assert {place.number for place in sent} <= {0, 1, 2, 3}


def test_a_part_of_a_batch_keeps_its_buffer():
    """Whatever refers to the memory counts: views, and arrays of them."""
    clips = iter(DataLoader(Clips(), 4, num_workers=1, collate_fn=collate))
    row, column = next(clips).wav[1], next(clips).wav.numpy()[:, 7]
    for _ in clips:
        pass
    assert torch.equal(row[:60001], torch.ones(60001))
    assert column.tolist() == [4, 5, 6, 7]


def test_a_forked_process_frees_no_buffer():
    """A worker that starts while a batch is in use drops its copy when it ends."""
    batch = next(iter(DataLoader(Clips(), 4, num_workers=1, collate_fn=collate)))
    buffer = list(shared_memory._received.values())[0]
    if (child := os.fork()) == 0:
        del batch
        os._exit(0)
    os.waitpid(child, 0)
    assert buffer[0] == 1
    del batch
    assert buffer[0] == 0


def test_buffers_of_ended_workers_are_dropped():
    batches_of()
    shared_memory.drop_buffers()
    assert not shared_memory._received


def test_without_room_batches_come_by_value(monkeypatch, caplog):
    monkeypatch.setattr(os, "statvfs", room(64 * MB, 16 * MB))
    monkeypatch.setattr(shared_memory, "_warned", False)
    assert batches_of(multiprocessing_context="fork") == [None] * 6
    (record,) = caplog.records
    assert "/dev/shm" in record.getMessage() and "--shm-size" in record.getMessage()


@pytest.mark.slow
@pytest.mark.parametrize("options", ["size=3m", "size=64k", "size=3m,nr_inodes=20"])
def test_a_small_file_system(run_code, options):
    """As in a container: some batches find room, others do not, and none is lost."""
    mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm"
    alone = ["unshare", "-m", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.call([*alone, mount]):
        pytest.skip("mounting is not allowed here")
    code = (
        "import sys; sys.path.insert(0, 'tests/unit/data'); "
        "import test_shared_memory as t; print([s is not None for s in t.batches_of()])"
    )
    printed, warned = run_code(code, command=[*alone, f'{mount} && exec "$@"', "sh"])
    assert "False" in printed and "--shm-size" in warned
