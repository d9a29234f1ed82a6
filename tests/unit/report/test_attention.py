"""The attention map is the one that the block itself applies."""

import torch

from eat.model.encoder import EATEncoder
from eat.report.attention import cls_attention


def test_weights_reproduce_the_output_of_the_attention():
    torch.manual_seed(0)
    encoder = EATEncoder(dim=24, depth=2, num_heads=2, max_frames=64).eval()
    spec = torch.randn(3, 48, 128)
    inputs, outputs = [], []
    attention = encoder.blocks[1].attn
    attention.register_forward_hook(lambda _, given, __: inputs.append(given[0]))
    attention.register_forward_hook(lambda _, __, output: outputs.append(output))
    weights = cls_attention(encoder, spec)
    assert weights.shape == (3, 2, 3, 8)
    # The share that is missing to 1 is that of the CLS token.
    weights = weights.flatten(2)
    weights = torch.cat([1 - weights.sum(2, keepdim=True), weights], dim=2)
    values = attention.qkv(inputs[0])[..., 48:].view(3, 25, 2, 12)
    mixed = torch.einsum("bhn,bnhd->bhd", weights, values).flatten(1)
    torch.testing.assert_close(attention.proj(mixed), outputs[0][:, 0])
    # The hook is gone.
    assert not attention.qkv._forward_hooks
