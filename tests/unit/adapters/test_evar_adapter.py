"""EVAR: frames and vectors in its layout, over a stub of its base class."""

import importlib
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import eat


class BaseAudioRepr(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg


@pytest.fixture
def adapter(monkeypatch):
    base = ModuleType("evar.ar_base")
    base.BaseAudioRepr = BaseAudioRepr
    monkeypatch.setitem(sys.modules, "evar", ModuleType("evar"))
    monkeypatch.setitem(sys.modules, "evar.ar_base", base)
    monkeypatch.delitem(sys.modules, "eat.adapters.evar", raising=False)
    yield importlib.import_module("eat.adapters.evar")
    del sys.modules["eat.adapters.evar"]


def test_layout(adapter, parity_folder):
    path = str(parity_folder / "official_pretrain.pt")
    wav = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    model = adapter.AR_EAT({"weight_file": path, "layers": 1, "pooling": "mean"})
    direct = eat.from_pretrained(path)
    expected = direct.encode_batch(wav, layers=1, pooling="mean")
    assert torch.equal(model(wav), expected)
    frames = direct.encode_batch(wav, layers=1, granularity="frames")
    assert torch.equal(model.encode_frames(wav), frames.transpose(1, 2))
