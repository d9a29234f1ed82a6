"""The shares of variance are those of the targets that training uses."""

import numpy as np
import pytest
import torch

from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.pretraining.model import EATForPreTraining, EATStudent
from eat.pretraining.teacher import EMATeacher
from eat.pretraining.ufo import utterance_loss
from evidence.utterance_variance import measure, untrained

M, N, D, FRAMES = 5, 8, 16, 64


@pytest.fixture
def model():
    torch.manual_seed(1)
    encoder = EATEncoder(
        dim=D, depth=2, num_heads=2, max_frames=FRAMES, num_mels=2 * 16
    )
    student = EATStudent(encoder, CNNDecoder(dim=D, depth=1, groups=2))
    return EATForPreTraining(student, EMATeacher(encoder, 0.9, N)).eval()


@pytest.fixture
def spec():
    noise = torch.randn(M, FRAMES, 32, generator=torch.Generator().manual_seed(2))
    return noise + torch.arange(M)[:, None, None]  # clips differ in level


def channel_variance(x):
    return np.var(x.numpy().reshape(-1, D), axis=0, ddof=1).mean()


def test_shares_of_the_targets(model, spec):
    targets = model.teacher.targets(spec)  # its center is still 0
    values = measure(model, [spec[:2], spec[2:]])
    expected = channel_variance(targets.utterance) / channel_variance(targets.patches)
    assert values["share"] == pytest.approx(expected, rel=1e-4)
    assert values["weight_of_share"] == pytest.approx(192 * expected, rel=1e-4)
    # After the instance norm all clips have the same mean, before it they do not.
    assert values["share_before_layer_norm"] < 1e-9 < values["share_before_norm"]
    with torch.no_grad():
        cls = model.student.encoder(spec).cls
        loss = utterance_loss(cls, targets.utterance).item()
    assert values["utterance_loss"] == pytest.approx(loss, rel=1e-4)
    assert values["unit_loss"] == D**0.5


def test_center_is_subtracted_as_in_training(model, spec):
    model.teacher.targets(spec, update_center=True)
    model.teacher.update(model.student.encoder, 0.5)
    values = measure(model, [spec], model.teacher.center)
    expected = channel_variance(model.teacher.targets(spec).utterance)
    assert values["utterance_variance"] == pytest.approx(expected, rel=1e-3)


def test_untrained_model_has_its_own_weights(model, spec):
    config = {
        "encoder": model.student.encoder.config,
        "decoder": model.student.decoder.config,
        "teacher": model.teacher.config,
        "utterance_weight": 1.0,
    }
    fresh = untrained(config, seed=3)
    ours, theirs = (m.student.encoder.cls_token for m in (model, fresh))
    assert ours.shape == theirs.shape and not torch.equal(ours, theirs)
    values = measure(fresh, [spec])
    assert values["cls_power"] == pytest.approx(1, rel=1e-3) and values["gain"] == 1
