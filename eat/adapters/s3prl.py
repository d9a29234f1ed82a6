"""SUPERB: an upstream for s3prl.

    python -m eat.adapters.s3prl -u eat -k MODEL -m train -d speech_commands -n NAME ...

This is s3prl's `run_downstream.py`, which knows the upstream ``eat``.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from torch import Tensor, nn

from eat.audio.frontend import SAMPLE_RATE
from eat.audio.io import read_audio
from eat.inference.features import from_pretrained
from eat.inference.windows import FRAME_MS


class UpstreamExpert(nn.Module):
    """The frames of all layers of a checkpoint, of which SUPERB learns a weighted sum.

    Parameters
    ----------
    ckpt
        A checkpoint, see :func:`eat.from_pretrained`.
    model_config
        A YAML file with ``hop_ms``, the distance of the frames (by default 160), and
        further options of :meth:`AudioEncoder.encode_batch`.
    """

    def __init__(
        self, ckpt: str, model_config: str | None = None, **unused: Any
    ) -> None:
        super().__init__()
        text = Path(model_config).read_text(encoding="utf-8") if model_config else ""
        self.options = {"hop_ms": FRAME_MS, **(yaml.safe_load(text) or {})}
        self.model = from_pretrained(ckpt)

    def get_downsample_rates(self, key: str) -> int:
        """Return the samples per frame at 16 kHz."""
        return self.options["hop_ms"] * SAMPLE_RATE // 1000

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Encode clips `[S]` at 16 kHz to ``hidden_states``, `[B, T, D]` per layer."""
        frames = self.model.encode_batch(
            list(wavs), granularity="frames", layers="all", **self.options
        )
        return {"hidden_states": list(frames.unbind(dim=1))}


def read_with_effects(
    path: str, effects: Sequence[Sequence[str]]
) -> tuple[Tensor, int]:
    """Read a recording as SUPERB's tasks do: one channel, resampled, attenuated.

    Replaces ``torchaudio.sox_effects.apply_effects_file``; returns samples `[1, S]` and
    their rate.
    """
    values = {effect[0]: effect[1] for effect in effects}
    if unknown := values.keys() - {"channels", "rate", "gain"}:
        raise NotImplementedError(f"effects {sorted(unknown)} (install torchaudio<2.9)")
    rate = int(values.get("rate", SAMPLE_RATE))
    gain = 10 ** (float(values.get("gain", 0)) / 20)
    return gain * read_audio(path, rate)[None], rate


def _restore_removed() -> None:
    """Provide what s3prl 0.4.18 imports and its dependencies have removed since."""
    import huggingface_hub
    import torchaudio

    if not hasattr(torchaudio, "set_audio_backend"):
        torchaudio.set_audio_backend = lambda backend: None
    if not importlib.util.find_spec("torchaudio.sox_effects"):
        sox_effects = ModuleType("torchaudio.sox_effects")
        # SUPERB's tasks do not call the second one.
        functions = {
            "apply_effects_file": read_with_effects,
            "apply_effects_tensor": None,
        }
        vars(sox_effects).update(functions)
        sys.modules["torchaudio.sox_effects"] = torchaudio.sox_effects = sox_effects
    for name in ("HfFolder", "Repository"):  # used to upload models only
        if not hasattr(huggingface_hub, name):
            setattr(huggingface_hub, name, None)


def main() -> None:
    """Run s3prl's `run_downstream.py`."""
    _restore_removed()
    from s3prl import hub, run_downstream

    hub.eat = UpstreamExpert
    run_downstream.main()


if __name__ == "__main__":
    main()
