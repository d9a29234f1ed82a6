"""Batches arrive whatever room shared memory has."""

import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from eat.data import shared_memory
from eat.data.dataset import Batch, collate

MB = 2**20


class Clips(torch.utils.data.Dataset):
    """Clips of a quarter of a megabyte, each full of its own number."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        target = torch.full((3,), float(index))
        return {
            "id": str(index),
            "sig": torch.full((65536,), float(index)),
            "target": target,
        }


def check_all(**options):
    """Load all clips and keep the batches, as a prefetching consumer does."""
    loader = DataLoader(Clips(), 4, num_workers=2, collate_fn=collate, **options)
    batches = list(loader)
    for first, batch in zip(range(0, 24, 4), batches, strict=True):
        numbers = torch.arange(first, first + 4.0)
        assert isinstance(batch, Batch) and batch.ids == [
            *map(str, range(first, first + 4))
        ]
        assert torch.equal(batch.wav, numbers[:, None].expand(4, 65536))
        assert torch.equal(batch.labels, numbers[:, None].expand(4, 3))
        assert batch.lengths.tolist() == [65536] * 4
        batch.wav.add_(1)  # as augmentation may
    return [batch.wav.is_shared() for batch in batches]


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
    assert all(check_all(multiprocessing_context=context))


def test_without_room_batches_come_by_value(monkeypatch, caplog):
    monkeypatch.setattr(os, "statvfs", room(64 * MB, 16 * MB))
    monkeypatch.setattr(shared_memory, "_warned", False)
    assert not any(check_all(multiprocessing_context="fork"))
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
        "import test_shared_memory as t; print(t.check_all())"
    )
    printed, warned = run_code(code, command=[*alone, f'{mount} && exec "$@"', "sh"])
    assert "False" in printed and "--shm-size" in warned
