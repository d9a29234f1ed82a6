"""SUPERB: s3prl's own modules accept the upstream."""

import numpy as np
import pytest
import soundfile
import torch

from eat.adapters.s3prl import UpstreamExpert, read_with_effects

MODES = [(None, 160), ("hop_ms: 40\npad_to: clip\n", 40)]


@pytest.fixture
def official(parity_folder):
    return str(parity_folder / "official_pretrain.pt")


@pytest.fixture(params=MODES, ids=["default", "options"])
def upstream(request, official, tmp_path):
    text, hop_ms = request.param
    config = None
    if text:
        config = tmp_path / "model.yaml"
        config.write_text(text)
    return UpstreamExpert(ckpt=official, model_config=config, refresh=False), hop_ms


def clips(*lengths):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, generator=generator) * 0.1 for n in lengths]


def test_featurizer(upstream):
    interfaces = pytest.importorskip("s3prl.upstream.interfaces")
    model, hop_ms = upstream
    featurizer = interfaces.Featurizer(model, upstream_device="cpu")
    assert featurizer.output_dim == 48
    assert featurizer.downsample_rate == 16 * hop_ms
    assert featurizer.layer_num == 3
    wavs = clips(16000, 9000, 30000)
    features = featurizer(wavs, model(wavs))
    lengths = [round(len(wav) / featurizer.downsample_rate) for wav in wavs]
    assert [len(feature) for feature in features] == lengths
    # Its weights start equal: the mean of the layers, as each clip alone gives them.
    for wav, feature in zip(wavs, features, strict=True):
        alone = model.model.encode_batch(
            wav, granularity="frames", layers="all", **model.options
        )[0]
        expected = alone.mean(dim=0)[: len(feature)]
        torch.testing.assert_close(feature, expected, atol=1e-5, rtol=0)


def test_recordings_as_superb_reads_them(tmp_path):
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wav, 16000, subtype="FLOAT")
    effects = [["channels", "1"], ["rate", "16000"], ["gain", "-6"]]
    read, rate = read_with_effects(str(tmp_path / "a.wav"), effects)
    assert rate == 16000
    np.testing.assert_allclose(read[0], wav.mean(axis=1) * 0.5011872, atol=1e-6)
    with pytest.raises(NotImplementedError, match="reverb"):
        read_with_effects(str(tmp_path / "a.wav"), [["reverb", "50"]])


@pytest.mark.slow
def test_run_downstream_knows_the_upstream(run_code):
    """In a process of its own, since it replaces parts of other packages."""
    pytest.importorskip("s3prl")
    code = """
import sys
from types import SimpleNamespace
sys.modules["tensorboardX"] = SimpleNamespace(SummaryWriter=None)
sys.argv = ["s3prl", "--help"]
from eat.adapters import s3prl
s3prl.main()
"""
    printed, _ = run_code(code)
    assert "'eat'" in printed
