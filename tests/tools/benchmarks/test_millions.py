"""The simulation of millions of clips, with thousands."""

import pytest

from benchmarks import millions
from eat.data.compact_manifest import CompactManifest
from eat.data.shards import read_clip


def test_growth_of_the_last_steps():
    samples = [(0, 400.0), (10, 900.0), (20, 950.0), (30, 950.0), (40, 953.0)]
    assert millions.growth(samples, after=30) == 3.0
    assert millions.growth(samples, after=15) == 53.0


def test_metrics_above_the_limits_are_named():
    row = {"process": "rank 1", "growth_mb": 3.0}
    metrics = {"training": "t", "start_seconds": 9.0, "resume_seconds": 9.0}
    assert list(millions.above_limits({**metrics, "memory": [row]})) == []
    slow = {**metrics, "resume_seconds": 61.0}
    row["growth_mb"] = 51.0
    exceeded = list(millions.above_limits({**slow, "memory": [row]}))
    assert exceeded == ["t: resume_seconds 61.0", "t: rank 1 grew by 51.0 MB"]


@pytest.mark.slow
def test_a_run_starts_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(millions, "LOG_INTERVAL", 2)
    monkeypatch.setattr(millions, "CKPT_INTERVAL", 8)
    monkeypatch.setattr(millions, "POLL_SECONDS", 0.05)
    shards = millions.make_corpus(tmp_path, 5000)
    manifest = CompactManifest(shards / "pretrain.csv")
    assert len(manifest) == 5000 and len(set(manifest.wavs)) == 400
    wav = manifest.wavs[4999].replace("$data_root", str(shards))
    assert len(read_clip(wav)) == 2.56 * 16000
    found = millions.simulate("pre-training", shards, tmp_path / "run", 5000, 32)
    assert 0 < found["start_seconds"] < 60 and 0 < found["resume_seconds"] < 60
    names = [row["process"] for row in found["memory"]]
    worker = "data worker"
    assert names == [
        "rank 0",
        *[f"rank 0, {worker}"] * 2,
        "rank 1",
        *[f"rank 1, {worker}"] * 2,
    ]
    assert all(row["peak_mb"] > 100 for row in found["memory"])
