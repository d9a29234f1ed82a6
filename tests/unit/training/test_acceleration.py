"""What is chosen for a device."""

import pytest
import torch
from recipe_modules import load_recipe
from torch.nn.parallel import DistributedDataParallel

from eat.training.acceleration import loader_options, set_backends


@pytest.mark.parametrize(
    ("training", "workers", "persistent"),
    [(True, 2, True), (True, 0, False), (False, 2, False)],
)
def test_only_workers_that_are_needed_soon_stay(training, workers, persistent):
    options = loader_options("cpu", workers, training)
    assert options.get("persistent_workers", False) == persistent
    torch.utils.data.DataLoader(range(4), **options)  # which refuses what cannot be


@pytest.mark.parametrize(("device", "gpu"), [("cpu", False), ("cuda:1", True)])
def test_a_gpu_has_pinned_memory_and_timed_convolutions(monkeypatch, device, gpu):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    set_backends(device)
    assert torch.backends.cudnn.benchmark == gpu
    assert loader_options(device, 0, training=False)["pin_memory"] == gpu


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_no_buffer_is_broadcast(
    pretrain_brain, finetune_brain, tmp_path, monkeypatch, kind
):
    """In one process that is a group of its own; tests/integration starts two."""
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", store, rank=0, world_size=1)
    try:
        recipe, options = load_recipe("AudioSet"), {"distributed_backend": "gloo"}
        make, brain_class = {
            "pretrain": (pretrain_brain, recipe.AudioSetPretrainBrain),
            "finetune": (finetune_brain, recipe.AudioSetFinetuneBrain),
        }[kind]
        brain = make(brain_class, tmp_path, run_opts=options)
        brain.train_sampler = Sampler()
        brain.on_fit_start()
        model = brain.modules[brain.trainable_name]
        assert isinstance(model, DistributedDataParallel) and len([*model.buffers()])
        assert not model.will_sync_module_buffers()
    finally:
        torch.distributed.destroy_process_group()


class Sampler:
    """Starts anywhere."""

    def start_from(self, batch):
        pass
