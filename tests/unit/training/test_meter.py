"""The meter averages metrics and measures training time, across interruptions."""

import pytest
import torch

from eat.training import meter as module
from eat.training.meter import IntervalMeter


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_validation_time_is_not_counted(clock):
    meter = IntervalMeter()
    clock.now += 5  # before training
    assert meter.seconds == 0
    for _ in range(2):
        meter.resume()
        clock.now += 3
        assert meter.seconds % 3 == 0
        meter.resume()  # no effect
        meter.pause()
        meter.pause()
        clock.now += 40
    assert meter.seconds == 6


def test_clips_per_second_are_those_of_training(clock):
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
    means = meter.means()
    assert (means["loss"], means["clips_per_second"]) == (1.5, 10 / 2)


def test_share_of_the_time_without_a_batch(clock):
    meter = IntervalMeter()
    for validation in (0, 40):
        clock.now += validation
        meter.resume()
        for wait, step in [(3, 1), (1, 5)]:
            clock.now += wait
            meter.stop_waiting()
            clock.now += step
            meter.start_waiting()
        meter.pause()
    assert meter.means()["data_share"] == (3 + 1) / (3 + 1 + 1 + 5)
    meter.reset()
    meter.resume()
    clock.now += 2
    meter.stop_waiting()
    assert meter.means()["data_share"] == 1.0


def restored(rank, world_size):
    """A meter after two ranks had one batch each and 7 seconds of training."""
    meter = IntervalMeter(rank, world_size)
    sums = [{"loss": 3.0}, {"loss": 5.0}]
    meter.restore(sums, batches=1, seconds=7.0, device_seconds=14.0)
    meter.resume()
    return meter


def test_interval_continues_after_an_interruption(clock):
    meters = [restored(rank, 2) for rank in (0, 1)]
    clock.now += 2
    assert [meter.seconds for meter in meters] == [9, 9]
    # Each rank has its own sums; the rate is that of this part of the run.
    meters[1].add({"loss": torch.tensor(1.0)}, clips=10)
    means = [meter.means() for meter in meters]
    assert [mean["loss"] for mean in means] == [3.0, 3.0]
    assert means[1]["clips_per_second"] == 5.0


@pytest.mark.parametrize("world_size", [1, 4])
def test_interval_continues_with_another_number_of_processes(clock, world_size):
    meters = [restored(rank, world_size) for rank in range(world_size)]
    for meter in meters:  # four batches more
        for _ in range(4 // world_size):
            meter.add({"loss": torch.tensor(10.0)}, clips=4)
    clock.now += 10
    assert meters[0].seconds == 17
    assert meters[0].device_seconds == 2 * 7 + world_size * 10
    means = [meter.means()["loss"] for meter in meters]
    assert sum(means) / world_size == pytest.approx((3 + 5 + 4 * 10) / 6)
