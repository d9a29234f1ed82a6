"""Helpers of distributed runs; tests/integration runs several processes."""

import pytest

from eat.errors import ExperimentError
from eat.experiment.process_group import init_process_group
from eat.utils.distributed import NO_SHARED_STORE, interleave, world_size

ELASTIC = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "3"}
HANGS = f"^--max-restarts: .*{NO_SHARED_STORE}=1"


@pytest.fixture
def launcher(monkeypatch):
    """Set environment variables as a launcher does."""

    def launch(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return launch


def test_without_a_launcher_there_is_one_process():
    init_process_group({"distributed_backend": "nccl"})
    assert world_size() == 1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_interleaved_parts_are_in_their_original_order(number):
    items = [*"abcdefg"]
    assert interleave([items[rank::number] for rank in range(number)]) == items


def test_restarts_that_share_a_store_are_refused(launcher):
    launcher(**ELASTIC)
    with pytest.raises(ExperimentError, match=HANGS) as caught:
        init_process_group({"distributed_backend": "gloo"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"TORCHELASTIC_USE_AGENT_STORE": "False"},  # with the variable set
        {"TORCHELASTIC_MAX_RESTARTS": "0"},
    ],
    ids=str,
)
def test_other_launchers_are_accepted(launcher, changed):
    launcher(**ELASTIC | changed)
    init_process_group({"distributed_backend": "nccl"})  # no RANK: no group


def test_more_processes_than_gpus_are_refused_in_one_line(launcher, monkeypatch):
    launcher(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    options = "^--distributed_backend nccl: .*--device cpu --distributed_backend gloo"
    with pytest.raises(ExperimentError, match=options) as caught:
        init_process_group({"distributed_backend": "nccl"})
    assert "\n" not in str(caught.value)
