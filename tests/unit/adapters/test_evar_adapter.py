"""EVAR: frames and vectors in the layout that it expects."""

import torch

import eat
from eat.adapters.evar import AR_EAT


def test_layout(parity_folder):
    path = str(parity_folder / "official_pretrain.pt")
    wav = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    model = AR_EAT({"weight_file": path, "layers": 1, "pooling": "mean"}).eval()
    model.precompute(torch.device("cpu"), [])
    direct = eat.from_pretrained(path)
    expected = direct.encode_batch(wav, layers=1, pooling="mean")
    assert torch.equal(model(wav), expected)
    frames = direct.encode_batch(wav, layers=1, granularity="frames")
    assert torch.equal(model.encode_frames(wav), frames.transpose(1, 2))
