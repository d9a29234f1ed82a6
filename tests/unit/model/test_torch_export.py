"""torch.export gives programs that compute what the modules do, at any size."""

import pytest
import torch
from torch.export import Dim, export, register_dataclass

from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder, EncoderOutput

pytestmark = pytest.mark.slow

SIZES = [(1, 32), (3, 64), (2, 128)]


def exported(module):
    """Export for any batch, and numbers of frames up to 128."""
    shapes = {"spec": {0: Dim("batch"), 1: 16 * Dim("steps", min=2, max=8)}}
    example = torch.randn(2, 32, 128)
    return export(module, (example,), dynamic_shapes=shapes).module()


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return EATEncoder(dim=16, depth=2, num_heads=2, max_frames=128).eval()


@torch.no_grad()
def test_an_encoder(encoder):
    register_dataclass(EncoderOutput)
    program = exported(encoder)
    for batch, frames in SIZES:
        spec = torch.randn(batch, frames, 128)
        ours, eager = program(spec), encoder(spec)
        assert (ours.cls - eager.cls).abs().max() < 1e-6
        assert ours.patches.shape == eager.patches.shape
        assert (ours.patches - eager.patches).abs().max() < 1e-6


@pytest.mark.parametrize("pooling", ["cls", "linear_softmax"])
@torch.no_grad()
def test_a_classifier(encoder, pooling):
    classifier = EATClassifier(encoder, 5, pooling).eval()
    program = exported(classifier)
    for batch, frames in SIZES:
        spec = torch.randn(batch, frames, 128)
        assert (program(spec) - classifier(spec)).abs().max() < 1e-6
