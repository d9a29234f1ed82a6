"""X-ARES: its own check of an encoder, and one of its tasks on a toy corpus."""

import io
import json
import tarfile

import numpy as np
import pytest
import soundfile
import torch

from eat.adapters import xares


@pytest.fixture
def make_encoder(parity_folder):
    class ToyEncoder(xares.EATEncoder):
        def __init__(self, **options):
            super().__init__(str(parity_folder / "official_pretrain.pt"), **options)

    return ToyEncoder


@pytest.mark.parametrize(
    "options", [{}, {"hop_ms": 40, "layers": 1}], ids=["default", "options"]
)
def test_official_check(make_encoder, options):
    checker = pytest.importorskip("xares.audio_encoder_checker")
    encoder = make_encoder(**options)
    assert checker.check_audio_encoder(encoder)
    wav = torch.randn(2, 50000, generator=torch.Generator().manual_seed(0))
    frames = encoder(wav)
    assert frames.shape[1] == -(-50000 // (16 * encoder.hop_size_in_ms))
    torch.testing.assert_close(encoder(wav[1]), frames[1:], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_ten_minutes(make_encoder):
    assert make_encoder()(torch.zeros(600 * 16000)).shape == (1, 3750, 48)


def write_tar(path, rng, clips):
    """Write noise, labeled 0, and tones, labeled 1, as a WebDataset shard."""
    with tarfile.open(path, "w") as tar:
        for i in range(clips):
            seconds = np.arange(8000 + 1000 * i) / 16000
            wav = rng.uniform(-0.5, 0.5, len(seconds))
            if label := i % 2:
                wav = 0.3 * np.sin(2 * np.pi * rng.uniform(300, 600) * seconds)
            audio = io.BytesIO()
            soundfile.write(audio, wav, 16000, format="WAV")
            parts = {"wav": audio.getvalue(), "json": json.dumps({"label": label})}
            for suffix, content in parts.items():
                content = content if isinstance(content, bytes) else content.encode()
                member = tarfile.TarInfo(f"{path.stem}-{i}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.mark.slow
def test_task(make_encoder, tmp_path, torchcodec):
    task = pytest.importorskip("xares.task")
    rng = np.random.default_rng(0)
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / ".audio_tar_ready").touch()
    for split in ("train", "valid", "test"):
        write_tar(folder / f"{split}-0.tar", rng, 12)
    config = task.TaskConfig(
        name="toy",
        env_root=tmp_path,
        private=True,
        encoder=make_encoder(layers=1),
        label_processor=lambda row: row["label"],
        output_dim=2,
        epochs=20,
        learning_rate=0.03,
        num_encoder_workers=0,
        torch_num_threads=1,
        eval_weight=6,
    )
    toy = task.XaresTask(config)
    toy.make_encoded_tar()
    assert toy.run_mlp() == (1.0, 6)
    assert toy.run_knn()[0] == 1.0
