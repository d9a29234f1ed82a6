"""Operations of a step: the closed form, torch's counter, and the paper's model."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from eat.model.classifier import EATClassifier
from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.model.operations import (
    INFERENCE,
    embedding_operations,
    encoder_operations,
    finetuning_operations,
    gflop,
    pretraining_operations,
)
from eat.pretraining.masking import RandomMasking
from eat.pretraining.model import EATForPreTraining, EATStudent
from eat.pretraining.teacher import EMATeacher

GRID, CLONES, CLIPS = (4, 8), 3, 2  # of 64 frames


def counted(run):
    """Return the operations that torch counts in a call, in 1e9."""
    # As plain products: the counter does not know the CPU's fused attention.
    plain = sdpa_kernel(SDPBackend.MATH)
    with plain, FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9


@pytest.fixture
def encoder():
    return EATEncoder(dim=32, depth=3, num_heads=2, max_frames=64)


@pytest.fixture
def spec():
    return torch.randn(CLIPS, 64, 128)


def test_forward_and_backward_of_finetuning(encoder, spec):
    classifier = EATClassifier(encoder, num_classes=5)
    expected = gflop(finetuning_operations(encoder, 5, GRID, CLIPS))
    assert counted(lambda: classifier(spec).sum().backward()) == pytest.approx(expected)


def test_forward_of_an_encoder(encoder, spec):
    parts = [
        *embedding_operations(encoder, CLIPS, 32),
        *encoder_operations(encoder, "encoder", CLIPS, 33),
    ]
    with torch.no_grad():
        assert counted(lambda: encoder(spec)) == pytest.approx(gflop(parts))


@pytest.mark.parametrize("groups", [1, 4])
def test_forward_and_backward_of_pretraining(encoder, spec, groups):
    decoder = CNNDecoder(dim=16, depth=2, kernel=3, groups=groups, input_dim=32)
    model = EATForPreTraining(EATStudent(encoder, decoder), EMATeacher(encoder))
    masks = RandomMasking(0.8)(CLIPS, CLONES, GRID, torch.Generator())
    visible = masks.ids_keep.shape[1]
    parts = pretraining_operations(encoder, decoder, GRID, visible, CLONES, CLIPS)
    if groups == 1:  # torch's counter is wrong in the backward pass of others
        step = counted(lambda: model(spec, masks).loss.backward())
        assert step == pytest.approx(gflop(parts))
    forward = [replace(part, gradients=INFERENCE) for part in parts]
    with torch.no_grad():
        assert counted(lambda: model(spec, masks)) == pytest.approx(gflop(forward))


def test_operations_of_the_paper():
    """The official code has 1082.9, since it projects the visible patches too."""
    with torch.device("meta"):
        encoder, decoder = EATEncoder.from_preset("base"), CNNDecoder()
    parts = pretraining_operations(encoder, decoder, (64, 8), visible=102, clones=16)
    by_part = {}
    for part in parts:
        by_part[part.part] = by_part.get(part.part, 0.0) + part.flops / 1e9
    expected = {
        "patch embedding": 0.6,
        "teacher": 96.8,
        "student": 286.2 + 572.4,
        "decoder convolutions": 97.8,
        "decoder projection": 29.0 * 410 / 512,
    }
    assert by_part == pytest.approx(expected, rel=0.01)
    assert gflop(parts) == pytest.approx(1082.9 - 29.0 * 102 / 512, rel=1e-4)
