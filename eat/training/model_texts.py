"""The model card of a run's model folder: what the Brain knows of its training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from eat.interop.card import Training, folder_texts

COUNT = " clips"  # how the fingerprint's numbers of clips end
NOT_SHOWN = {"output_folder", "manifest_folder"}


def model_texts(
    folder: Path,
    config: Mapping[str, Any],
    model: nn.Module,
    corpus: str,
    fingerprint: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> dict[str, str]:
    """Return the card and SpeechBrain's YAML file of a model folder.

    Parameters
    ----------
    folder, config, model
        As :func:`eat.interop.pretrained.save_model` gets them.
    corpus
        Folder with the recordings, whose name is shown.
    fingerprint
        What the run's numbers depend on, see `eat.training.inputs`: its settings and
        the numbers of its clips. Empty if the model is not that of a run.
    metrics
        Results of the epoch that the model is of.
    """
    # Their names have spaces, those of settings have none.
    clips = {k: v for k, v in fingerprint.items() if k.endswith(COUNT)}
    settings = {
        k: v for k, v in fingerprint.items() if k not in NOT_SHOWN and " " not in k
    }
    training = Training(
        corpus=Path(corpus).name,
        clips={name.removesuffix(COUNT): number for name, number in clips.items()},
        settings=settings,
        metrics=metrics,
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return folder_texts(folder, config, parameters, training)
