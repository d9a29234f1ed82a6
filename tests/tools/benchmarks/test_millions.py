"""The simulation of millions of clips, with thousands."""

import pytest

from benchmarks import millions
from eat.data import arrow_file
from eat.data.compact_manifest import CompactManifest
from eat.data.shards import read_clip
from eat.errors import EATError


def test_growth_of_the_last_steps():
    samples = [(0, 400.0), (10, 900.0), (20, 950.0), (30, 950.0), (40, 953.0)]
    assert millions.growth(samples, after=30) == 3.0
    assert millions.growth(samples, after=15) == 53.0


def test_metrics_above_the_limits_are_named():
    def metrics(seconds, more, growth=3.0):
        names = ("rank 1", "rank 1, data worker")
        rows = [{"process": n, "mb": more, "growth_mb": growth} for n in names]
        times = {"start_seconds": 9.0, "resume_seconds": seconds}
        return {"training": "t", **times, "memory": rows}

    def exceeded(many):
        return list(millions.above_limits(millions.compare(many, metrics(9.0, 600))))

    assert exceeded(metrics(18.0, 649)) == []
    slow, worker = exceeded(metrics(20.0, 660))
    assert "resume_seconds_more 11.0" in slow and "data worker" in worker
    assert len(exceeded(metrics(9.0, 901))) == 2
    assert len(exceeded(metrics(9.0, 600, growth=51.0))) == 2


def test_an_order_with_a_missing_clip_is_noticed(monkeypatch):
    monkeypatch.setattr(millions, "CHUNK", 1000)
    assert millions.check_order(5000)["different_clips"] == 5000
    part = millions.EpochSampler.part
    monkeypatch.setattr(
        millions.EpochSampler, "part", lambda *args: part(*args).clip(1)
    )
    with pytest.raises(EATError, match="1 are missing"):
        millions.check_order(5000)


@pytest.mark.slow
def test_a_run_starts_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(millions, "CKPT_INTERVAL", 16)
    monkeypatch.setattr(millions, "POLL_SECONDS", 0.05)
    shards = millions.make_corpus(tmp_path, 5000)
    monkeypatch.setattr(arrow_file, "MAPPED_BYTES", 1000)
    assert millions.convert(shards / "many.csv")["seconds"] > 0
    manifest = CompactManifest(shards / "many.csv")
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
    assert all(row["mb"] > 0 for row in found["memory"])
