"""``import eat.hf``: transformers' auto classes open EAT without the folder's code.

Afterwards ``AutoModel.from_pretrained(folder)`` and ``pipeline("audio-classification",
model=folder)`` need no ``trust_remote_code`` for a folder of ``eat export hf``.
"""

from __future__ import annotations

import os
from typing import Any

try:
    from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification
except ImportError as error:
    raise ImportError(
        f"eat.hf: transformers cannot be imported, {error} (pip install "
        "'eat-toolkit[hf]')"
    ) from error

from eat.interop import modeling_eat
from eat.interop.hugging_face_export import write_modeling
from eat.interop.modeling_eat import EATConfig, EATPreTrainedModel

__all__ = ["EATConfig", "EATForAudioClassification", "EATModel"]


class _SavedWithCode(EATPreTrainedModel):
    """A model whose saved folder contains the code, to open it without this package."""

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> None:
        """Save the model as transformers does, and its code."""
        super().save_pretrained(save_directory, *args, **kwargs)
        write_modeling(save_directory)


class EATModel(_SavedWithCode, modeling_eat.EATModel):
    """The encoder as a model of transformers, see `modeling_eat.EATModel`."""


class EATForAudioClassification(_SavedWithCode, modeling_eat.EATForAudioClassification):
    """The classifier, see `modeling_eat.EATForAudioClassification`."""


AutoConfig.register("eat", EATConfig, exist_ok=True)
AutoModel.register(EATConfig, EATModel, exist_ok=True)
AutoModelForAudioClassification.register(
    EATConfig, EATForAudioClassification, exist_ok=True
)
