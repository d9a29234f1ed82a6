"""A signal is obeyed while a data worker hangs, and the run can be resumed."""

import os
import signal
import threading
import time
from functools import partial

import pytest
import torch
from test_resume import Toy, clips, outcome
from torch.utils.data import Dataset

from eat.data import workers
from eat.data.samplers import EpochSampler
from eat.errors import Interrupted

ORDER = list(EpochSampler(24, 12, seed=1))  # of the first epoch, two in a batch


class Hanging(Dataset):
    """Clips of which one cannot be read as long as a file exists."""

    def __init__(self, count, index, flag):
        self.clips, self.index, self.flag = clips(count), index, flag

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        while index == self.index and self.flag.exists():
            time.sleep(0.05)
        return self.clips[index]


@pytest.fixture
def make(finetune_brain, monkeypatch):
    """Make a Brain with three steps an epoch, of two batches of two clips."""
    monkeypatch.setattr(workers, "WAIT_SECONDS", 1)
    options = {"grad_accumulation_factor": 2}
    sizes = {"epochs": 2, "steps_per_epoch": 3, "log_interval": 2, "num_workers": 1}
    return partial(finetune_brain, Toy, run_opts=options, **sizes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "valid", "saved"),
    [
        (ORDER[8], None, ["CKPT"]),  # the first batch of the third step
        (ORDER[10], None, []),  # its second: the gradients so far would be lost
        (ORDER[0], None, []),  # nothing to save yet
        (None, 3, ["CKPT"]),
    ],
)
def test_signal_while_a_worker_hangs(make, tmp_path, train, valid, saved):
    flag, whole, run = (tmp_path / name for name in ("hang", "whole", "run"))
    for folder in (whole, run):
        folder.mkdir()
    data = Hanging(24, train, flag), Hanging(6, valid, flag)
    uninterrupted = make(whole)
    uninterrupted.fit_steps(*data)
    flag.touch()
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    start = time.monotonic()
    with pytest.raises(Interrupted, match="SIGTERM") as stop:
        make(run).fit_steps(*data)
    timer.join()
    assert stop.value.number == signal.SIGTERM and time.monotonic() - start < 10
    assert [path.name[:4] for path in (run / "save").glob("CKPT*")] == saved
    flag.unlink()
    resumed = make(run)
    resumed.fit_steps(*data)
    (tensors, records), (found, logged) = (
        outcome(whole, uninterrupted),
        outcome(run, resumed),
    )
    assert logged == records
    assert all(torch.equal(a, b) for a, b in zip(tensors, found, strict=True))
