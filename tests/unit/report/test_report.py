"""Reports: logs, tables and pictures."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch

from eat.report.curves import plot_curves, read_metrics
from eat.report.markdown import markdown_table
from eat.report.pictures import plot_comparison, plot_masks


def step(number, **values):
    return {
        "kind": "step",
        "step": number,
        "frame_loss": 5.0,
        "utterance_loss": 1.0,
        "between_clip_variance": 0.9,
        "target_std": 0.99,
        "prediction_std": 0.7,
    } | values


def epoch(number, step, **values):
    return {"kind": "epoch", "epoch": number, "step": step} | values


def write(path, records, tail=""):
    path.write_text("".join(json.dumps(r) + "\n" for r in records) + tail)
    return path


def colors(path):
    from matplotlib.image import imread

    picture = torch.from_numpy(imread(path)[..., :3])
    return (picture * 255).round().int().reshape(-1, 3)


def has_color(path, hexadecimal):
    wanted = [int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((colors(path) == torch.tensor(wanted)).all(dim=1).any())


def test_read_metrics_keeps_the_last_record_of_a_repeated_step(tmp_path):
    records = [step(10), step(20, frame_loss=9.0), epoch(1, 20, knn_mAP=0.2)]
    resumed = [step(20, frame_loss=4.0), epoch(1, 20, knn_mAP=0.3), step(30)]
    table = read_metrics(write(tmp_path / "metrics.jsonl", records + resumed))
    steps = table[table["kind"] == "step"]
    assert steps["step"].tolist() == [10, 20, 30]
    assert steps["frame_loss"].tolist() == [5, 4, 5]
    assert table.loc[table["kind"] == "epoch", "knn_mAP"].tolist() == [0.3]


def test_read_metrics_of_version_0_1(tmp_path):
    old = {"kind": "step", "step": 10, "target_deviation": 0.9}
    old |= {"prediction_deviation": 0.5, "content": 0.7, "frame_loss": 5.0}
    table = read_metrics(write(tmp_path / "metrics.jsonl", [old, step(20)]))
    assert table["target_std"].tolist() == [0.9, 0.99]
    assert table["prediction_std"].tolist() == [0.5, 0.7]
    assert table["between_clip_variance"].tolist() == [0.7, 0.9]
    assert set(table) == set(step(20))


def test_read_metrics_skips_an_incomplete_line(tmp_path):
    records = [step(10), step(20, between_clip_variance=math.nan)]
    path = write(tmp_path / "metrics.jsonl", records, tail='{"kind": "step", "st')
    table = read_metrics(path)
    assert table["step"].tolist() == [10, 20]
    assert math.isnan(table["between_clip_variance"].iloc[1])


def test_read_metrics_of_an_empty_log_names_it(tmp_path):
    path = write(tmp_path / "metrics.jsonl", [])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_metrics(path)


@pytest.mark.slow
def test_curves_with_and_without_a_probe(tmp_path):
    records = [step(i, between_clip_variance=0.5 + i / 1000) for i in range(0, 300, 10)]
    plain = read_metrics(write(tmp_path / "a.jsonl", records))
    plot_curves(plain, tmp_path / "plain.png")
    for number, mAP in ((1, 0.2), (2, 0.25)):
        records.append(epoch(number, 100 * number, knn_mAP=mAP))
    probed = read_metrics(write(tmp_path / "b.jsonl", records))
    plot_curves(probed, tmp_path / "probed.png", {"log-mel statistics": 0.247})
    for name in ("plain", "probed"):
        for color in ("#0072B2", "#D55E00", "#009E73"):
            assert has_color(tmp_path / f"{name}.png", color)
    assert has_color(tmp_path / "probed.png", "#CC79A7")
    assert not has_color(tmp_path / "plain.png", "#CC79A7")


def gray_share(path):
    return (colors(path) == 0xC9).all(dim=1).float().mean().item()


@pytest.mark.slow
def test_masked_share_is_gray(tmp_path):
    spec = torch.randn(256, 128, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 16, 8, dtype=torch.uint8)
    plot_masks(spec, torch.ones_like(mask), tmp_path / "all.png", seconds=2.56)
    mask[:, :4] = 1
    plot_masks(spec, mask, tmp_path / "quarter.png", seconds=2.56)
    every, quarter = (gray_share(tmp_path / f"{n}.png") for n in ("all", "quarter"))
    assert quarter / every == pytest.approx(0.25, abs=0.02)


def test_comparison_of_groups_and_single_runs(tmp_path):
    rows = [
        {"group": "Frozen", "name": "untrained", "runs": [0.230, 0.226]},
        {"group": "Frozen", "name": "log-mel", "runs": [0.264]},
        {"group": "Fine-tuned", "name": "from scratch", "runs": [0.23, 0.22, 0.26]},
    ]
    plot_comparison(rows, tmp_path / "comparison.png", chance=0.147)
    for color in ("#0072B2", "#D55E00", "#6b6b6b"):
        assert has_color(tmp_path / "comparison.png", color)


def test_markdown_table():
    rows = [
        {"model": "a|b", "mAP": 0.34567, "steps": 300},
        {"model": "c", "mAP": math.nan},
    ]
    assert markdown_table(rows, ["model", "mAP", "steps"]).splitlines() == [
        "| model | mAP | steps |",
        "| :-- | --: | --: |",
        r"| a\|b | 0.346 | 300 |",
        "| c | – | – |",
    ]
