"""The classification head."""

import pytest
import torch

from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder, EncoderOutput


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    encoder = EATEncoder(dim=16, depth=1, num_heads=2, max_frames=64)
    return EATClassifier(encoder, 3, pooling="cls")


def test_logits_of_bf16_evaluation_differ_as_those_of_fp32(classifier):
    """In bf16, 2000 clips would share a few hundred logits, and ranks with them."""
    cls = torch.randn(2000, 16)
    encoded = EncoderOutput(cls, cls[:, None])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = classifier.train().classify(encoded)
        logits = classifier.eval().classify(encoded)
    assert len(rounded[:, 0].unique()) < 1000 and logits.dtype == torch.float32
    assert len(logits[:, 0].unique()) > 1990
    torch.testing.assert_close(logits, classifier.classify(encoded), atol=0.02, rtol=0)


def test_a_classifier_in_half_precision_is_evaluated_in_it(classifier):
    half = classifier.bfloat16().eval()
    cls = torch.randn(2, 16, dtype=torch.bfloat16)
    encoded = EncoderOutput(cls, cls[:, None])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert half.classify(encoded).dtype == torch.bfloat16
