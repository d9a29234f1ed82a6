"""Training in bf16 against fp32: losses and gradients within stated bounds."""

import pytest
import torch

import eat
from eat.pretraining.masking import InverseBlockMasking

# Relative errors of the losses and of the gradient as a whole, on trained weights.
LOSS, GRADIENT = 1e-3, {False: 0.015, True: 0.03}


@pytest.fixture(scope="module")
def model(parity_folder):
    return eat.load_pretraining(parity_folder / "official_pretrain.pt")


def losses_and_gradient(model, precision, bf16_residual=True):
    generator = torch.Generator().manual_seed(0)
    spec = torch.randn(4, 128, 128, generator=generator)
    masks = InverseBlockMasking()(4, 8, (8, 8), generator)
    noise = torch.randn(32, 64, model.student.encoder.dim, generator=generator) * 0.01
    for encoder in (model.student.encoder, model.teacher.encoder):
        encoder.bf16_residual = bf16_residual
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        out = model(spec, masks, noise)
    out.loss.backward()
    gradient = [p.grad.flatten() for p in model.student.parameters()]
    return out, torch.cat(gradient)


@pytest.mark.parametrize("bf16_residual", [False, True])
def test_pretraining_in_bf16(model, bf16_residual):
    exact, gradient = losses_and_gradient(model, "fp32")
    out, rounded = losses_and_gradient(model, "bf16", bf16_residual)
    for name in ("frame_loss", "utterance_loss"):
        assert getattr(out, name).item() == pytest.approx(
            getattr(exact, name).item(), rel=LOSS
        )
    assert 0 < (rounded - gradient).norm() < GRADIENT[bf16_residual] * gradient.norm()


def test_the_residual_stream_is_in_bf16_under_autocast_only(model):
    encoder = model.student.encoder
    spec = torch.randn(1, 32, 128)
    for bf16_residual, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        encoder.bf16_residual = bf16_residual
        assert encoder(spec).patches.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            layers = encoder(spec, return_layers=True).layers
        assert {layer.dtype for layer in layers} == {dtype}
