"""What processes that train together need; several at work: tests/integration."""

import pytest

from eat.errors import ExperimentError
from eat.experiment.process_group import init_process_group
from eat.utils.distributed import interleave, world_size

ELASTIC = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "3"}
HANGS = "^--max-restarts: torchrun's restarts hang without TORCH_DISABLE_SHARE_RDZV"


@pytest.fixture
def launcher(monkeypatch):
    """Set what a launcher sets."""

    def launch(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return launch


def test_without_a_launcher_there_is_one_process():
    init_process_group({"distributed_backend": "nccl"})
    assert world_size() == 1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_parts_in_turn_are_the_whole(number):
    whole = [*"abcdefg"]
    assert interleave([whole[rank::number] for rank in range(number)]) == whole


def test_restarts_over_one_store_are_refused(launcher):
    launcher(**ELASTIC)
    with pytest.raises(ExperimentError, match=HANGS) as told:
        init_process_group({"distributed_backend": "gloo"})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"TORCHELASTIC_USE_AGENT_STORE": "False"},  # as the remedy makes it
        {"TORCHELASTIC_MAX_RESTARTS": "0"},
    ],
    ids=str,
)
def test_other_launchers_are_not(launcher, changed):
    launcher(**ELASTIC | changed)
    init_process_group({"distributed_backend": "nccl"})  # no RANK: nothing to join


def test_more_processes_than_gpus_are_one_clear_line(launcher, monkeypatch):
    launcher(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    remedy = (
        "^--distributed_backend nccl: Not enough GPUs available! .*add --device cpu"
    )
    with pytest.raises(ExperimentError, match=remedy) as told:
        init_process_group({"distributed_backend": "nccl"})
    assert "\n" not in str(told.value)
