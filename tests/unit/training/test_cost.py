"""The cost of a run: operations of the paper's setting, time, devices, memory."""

import resource

import pytest
import torch

from eat.audio.frontend import LogMel
from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.pretraining.masking import block_masking
from eat.pretraining.model import EATForPreTraining, EATStudent
from eat.pretraining.teacher import EMATeacher
from eat.training.cost import training_cost
from eat.training.pretrain import PretrainBrain


def test_time_and_number_of_devices():
    cost = training_cost(1800.0, 4 * 1800.0, 9000, "cpu", 4)
    assert cost["hours"] == 0.5 and cost["device_hours"] == 2.0
    assert cost["clips_per_second"] == 5.0 and cost["devices"] == 4
    assert cost["device"].startswith("CPU ")


def test_peak_memory_is_in_mib():
    before = training_cost(1.0, 1.0, 1, "cpu", 1)["peak_memory_mb"]
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    assert before == pytest.approx(used, abs=4)
    torch.ones(2**20 * 64).sum()  # 256 MiB, above or below the peak so far
    after = training_cost(1.0, 1.0, 1, "cpu", 1)["peak_memory_mb"]
    assert before <= after < before + 300


@pytest.mark.slow
def test_operations_of_the_papers_pretraining(tmp_path):
    """The official code has 1082.9, with projections that are not used."""
    encoder = EATEncoder.from_preset("base")
    decoder = CNNDecoder(dim=768, depth=6, kernel=3, groups=16)
    modules = {
        "frontend": LogMel(-4.268, 4.569, 1024),
        "model": EATForPreTraining(EATStudent(encoder, decoder), EMATeacher(encoder)),
    }
    hparams = {
        "output_folder": str(tmp_path),
        "batch_size": 12,
        "clones": 16,
        "tensorboard": False,
        "wandb": "none",
        "mask_sampler": block_masking(0.8, 0.07, "5x5"),
    }
    brain = PretrainBrain(modules, torch.optim.AdamW, hparams, {"device": "cpu"})
    brain.optimizer_step = 10
    brain.meter.resume()
    cost = brain.cost()
    assert cost["gflop_per_clip"] == pytest.approx(1082.9, rel=0.01)
    assert cost["clips_per_second"] > 0 and cost["devices"] == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="names a GPU")
def test_name_and_memory_of_a_gpu():
    torch.zeros(2**20, device="cuda")
    cost = training_cost(1.0, 1.0, 1, "cuda:0", 1)
    assert cost["device"] == torch.cuda.get_device_name(0)
    assert cost["peak_memory_mb"] >= 4
