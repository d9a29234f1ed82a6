"""The simulation of millions of clips, with thousands."""

import pytest

from benchmarks import millions
from eat.data.compact_manifest import CompactManifest
from eat.data.shards import read_clip


def test_growth_is_that_of_the_end():
    samples = [(0, 400.0), (10, 900.0), (20, 950.0), (30, 950.0), (40, 953.0)]
    assert millions.growth(samples, after=30) == 3.0
    assert millions.growth(samples, after=15) == 53.0


def test_figures_above_the_limits_are_named():
    row = {"process": "process 1", "growth_mb": 3.0}
    figures = {"training": "t", "start_seconds": 9.0, "resume_seconds": 9.0}
    assert list(millions.above_limits({**figures, "memory": [row]})) == []
    slow = {**figures, "resume_seconds": 61.0}
    row["growth_mb"] = 51.0
    told = list(millions.above_limits({**slow, "memory": [row]}))
    assert told == ["t: resume_seconds 61.0", "t: process 1 grew by 51.0 MB"]


@pytest.mark.slow
def test_a_training_starts_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(millions, "LOG_INTERVAL", 2)
    monkeypatch.setattr(millions, "KEPT_EVERY", 8)
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
        "process 0",
        *[f"process 0, {worker}"] * 2,
        "process 1",
        *[f"process 1, {worker}"] * 2,
    ]
    assert all(row["peak_mb"] > 100 for row in found["memory"])
