"""The baselines' targets and losses are those of their papers."""

import numpy as np
import pytest
import torch

from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.model.patching import PATCH, PatchEmbedding
from eat.pretraining.masking import RandomMasking
from eat.pretraining.model import EATStudent
from eat.pretraining.teacher import EMATeacher
from evidence.baselines import MaskedAutoencoder, normalized_patches, patch_values

B, K, T, F = 2, 3, 48, 32
GRID = (T // PATCH, F // PATCH)


@pytest.fixture
def spec():
    return torch.randn(B, T, F, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    torch.manual_seed(2)
    encoder = EATEncoder(dim=8, depth=1, num_heads=2, max_frames=T, num_mels=F)
    decoder = CNNDecoder(dim=8, depth=1, groups=2, output_dim=PATCH**2)
    return MaskedAutoencoder(EATStudent(encoder, decoder), EMATeacher(encoder))


def test_patches_are_in_the_order_of_the_encoder(spec):
    embedding = PatchEmbedding(PATCH**2)
    with torch.no_grad():
        embedding.proj.weight.copy_(torch.eye(PATCH**2).view_as(embedding.proj.weight))
        embedding.proj.bias.zero_()
        torch.testing.assert_close(patch_values(spec), embedding(spec))


def test_each_patch_is_normalized(spec):
    targets = normalized_patches(spec).numpy()
    patch = spec[1, PATCH : 2 * PATCH, PATCH:].numpy()  # time 1, frequency 1
    expected = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
    np.testing.assert_allclose(targets[1, 3], expected.ravel(), atol=1e-6)
    constant = normalized_patches(torch.full((1, T, F), -7.0))
    assert constant.abs().max() == 0  # digital silence


def test_loss_is_the_mean_squared_error_of_masked_patches(model, spec):
    masks = RandomMasking(0.5)(B, K, GRID, torch.Generator().manual_seed(3))
    result = model(spec, masks)
    targets, total, number = normalized_patches(spec), 0.0, 0
    for row, mask in enumerate(masks.mask):
        for place, patch in enumerate(masks.ids_mask[row]):
            assert mask[patch]
            error = result.predictions[row, place] - targets[row // K, patch]
            total, number = total + error.square().mean(), number + 1
    torch.testing.assert_close(result.loss, total / number)
    assert result.utterance_loss == 0
    result.loss.backward()
    assert model.student.encoder.cls_token.grad is not None
    assert all(p.grad is None for p in model.teacher.parameters())
