"""The meter: time spent in training, and only that, across interruptions."""

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from eat.training import meter as module
from eat.training.meter import IntervalMeter


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes when told."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_validation_is_not_counted(clock):
    meter = IntervalMeter()
    clock.now += 5  # before training
    assert meter.seconds == 0
    for _ in range(2):
        meter.resume()
        clock.now += 3
        assert meter.seconds % 3 == 0
        meter.resume()  # no harm
        meter.pause()
        meter.pause()
        clock.now += 40
    assert meter.seconds == 6


def test_rate_is_that_of_training(clock):
    meter = IntervalMeter()
    meter.resume()
    clock.now += 2
    meter.reset()
    meter.add({"loss": torch.tensor(1.0)}, clips=6)
    clock.now += 1
    meter.pause()
    clock.now += 100  # a validation within an interval
    meter.resume()
    clock.now += 1
    meter.add({"loss": torch.tensor(2.0)}, clips=4)
    assert meter.means() == {"loss": 1.5, "clips_per_second": 10 / 2}


def test_survives_a_checkpoint(clock, tmp_path):
    meter = IntervalMeter()
    meter.resume()
    meter.add({"loss": torch.tensor(3.0)}, clips=4)
    meter.skipped = 2
    clock.now += 7
    meter.gather()
    Checkpointer(tmp_path, {"meter": meter}).save_checkpoint()
    clock.now += 50  # lost with the run that was killed
    resumed = IntervalMeter()
    Checkpointer(tmp_path, {"meter": resumed}).recover_if_possible()
    assert resumed.seconds == 7 and resumed.skipped == 2
    resumed.resume()
    clock.now += 2
    assert resumed.seconds == 9
    # The interval's mean goes on; its rate is that of this part of the run.
    resumed.add({"loss": torch.tensor(1.0)}, clips=10)
    assert resumed.means() == {"loss": 2.0, "clips_per_second": 5.0}


@pytest.fixture
def of_two(clock, tmp_path, monkeypatch):
    """A checkpoint of the second of two processes, after 7 seconds."""
    meter = IntervalMeter(1, 2)
    meter.resume()
    meter.add({"loss": torch.tensor(5.0)}, clips=4)
    clock.now += 7
    monkeypatch.setattr(
        module, "all_gather_objects", lambda mine: [{"loss": 3.0}, mine]
    )
    meter.gather()
    Checkpointer(tmp_path, {"meter": meter}).save_checkpoint()
    return tmp_path


def resume(folder, rank, world_size):
    meter = IntervalMeter(rank, world_size)
    Checkpointer(folder, {"meter": meter}).recover_if_possible()
    meter.resume()
    return meter


def test_each_process_goes_on_with_its_own_sums(of_two, clock):
    resumed = [resume(of_two, rank, 2) for rank in (0, 1)]
    clock.now += 1
    assert [meter.means()["loss"] for meter in resumed] == [3.0, 5.0]


@pytest.mark.parametrize("world_size", [1, 4])
def test_mean_and_cost_outlive_another_number_of_processes(of_two, clock, world_size):
    resumed = [resume(of_two, rank, world_size) for rank in range(world_size)]
    for meter in resumed:  # four batches more
        for _ in range(4 // world_size):
            meter.add({"loss": torch.tensor(10.0)}, clips=4)
    clock.now += 10
    assert resumed[0].seconds == 17
    assert resumed[0].device_seconds == 2 * 7 + world_size * 10
    means = [meter.means()["loss"] for meter in resumed]
    assert sum(means) / world_size == pytest.approx((3 + 5 + 4 * 10) / 6)
