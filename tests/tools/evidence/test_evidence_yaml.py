"""Every YAML file of the study builds, and its model computes a loss."""

from pathlib import Path

import pytest
import torch

from eat.experiment.config import load_config
from eat.model.patching import grid_of

FOLDER = Path(__file__).parents[3] / "tools" / "evidence" / "hparams"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_model_of_each_file(name, tmp_path):
    folders = {"data_folder": str(tmp_path), "output_folder": str(tmp_path / "run")}
    hparams = load_config(FOLDER / f"{name}.yaml", folders).instantiate()
    wav = torch.randn(2, 163_840, generator=torch.Generator().manual_seed(1)) / 10
    spec = hparams["frontend"](wav)
    masks = hparams["mask_sampler"](
        2, 1, grid_of(*spec.shape[1:]), torch.Generator().manual_seed(1)
    )
    result = hparams["modules"]["model"](spec, masks, update_center=True)
    result.loss.backward()
    assert torch.isfinite(result.loss)
    hparams["model"].teacher.update(hparams["encoder"], 0.5)
    assert result.predictions.shape[-1] == result.targets.shape[-1]
