"""The benchmark of exported models, with a tiny one."""

import pytest
import torch

from benchmarks import onnx_export
from eat.evaluation.metrics import mean_average_precision


def test_mean_ap_scores_clip_by_clip():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.3], [0.4, 0.8]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])

    class Clip:
        def __init__(self, row):
            self.wav, self.labels = torch.tensor([[row]]), labels[row : row + 1]

    found = onnx_export.mean_ap(lambda wav: scores[wav[0]], map(Clip, range(3)))
    assert found == pytest.approx(mean_average_precision(scores, labels))


@pytest.mark.slow
def test_rows_of_a_model(parity_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "CALLS", 1)
    source = parity_folder / "official_finetuned.pt"
    rows = onnx_export.measure("tiny", source, tmp_path, None)
    assert [row["form"] for row in rows] == ["PyTorch", "ONNX", "ONNX int8"]
    assert rows[2]["MB"] < rows[1]["MB"] and all(row["ms per clip"] > 0 for row in rows)
