"""Pictures of a clip as a run's model sees it: masked copies, and attention maps."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eat.audio.frontend import HOP, SAMPLE_RATE
from eat.audio.io import read_audio
from eat.errors import AudioError
from eat.interop.loading import Checkpoint
from eat.model.encoder import EATEncoder
from eat.model.patching import grid_of
from eat.pretraining.masking import block_masking
from eat.report.attention import cls_attention
from eat.report.pictures import plot_masks
from eat.report.runs import Run
from eat.report.style import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MASK_OPTIONS = {"mask_ratio", "adjust", "blocks"}


def load_clip(run: Run, checkpoint: Checkpoint, path: str | None) -> tuple[str, Tensor]:
    """Return a recording and its log-mel `[1, T, F]`.

    It is the first one of the run's evaluation clips that can be read if `path` is
    None. Raises `AudioError` if there is none.
    """
    frontend = checkpoint.frontend()
    seconds = frontend.num_frames * HOP / SAMPLE_RATE + 0.1
    candidates = run.clip_paths() if path is None else [path]
    reason = AudioError(f"{run.folder}: its manifests list no files (give --clip)")
    for candidate in candidates:
        try:
            wav = read_audio(candidate, SAMPLE_RATE, seconds)
        except AudioError as error:
            reason = error
            continue
        return candidate, frontend(wav[None])
    raise reason


def masks_picture(run: Run, spec: Tensor) -> str | None:
    """Draw masked copies with the run's settings, see `data_uri`; None without them."""
    settings = run.settings.get("mask_sampler")
    if not isinstance(settings, dict) or not settings.keys() >= MASK_OPTIONS:
        return None
    sampler = block_masking(**{name: settings[name] for name in MASK_OPTIONS})
    grid = grid_of(*spec.shape[1:])
    generator = torch.Generator().manual_seed(0)
    mask = sampler(1, int(run.settings.get("clones", 1)), grid, generator).mask
    buffer = BytesIO()
    plot_masks(spec[0], mask.view(-1, *grid), buffer, spec.shape[1] * HOP / SAMPLE_RATE)
    return data_uri(buffer)


def attention_picture(checkpoint: Checkpoint, spec: Tensor) -> str:
    """Draw where the CLS token of the last block attends to, averaged over heads."""
    names = ["encoder"]
    if checkpoint.kind == "pretraining":
        names = ["teacher", "student"]
    encoders = {
        name: checkpoint.encoder("teacher" if name == "teacher" else "student")
        for name in names
    }
    maps = {name: _last_block(encoder, spec) for name, encoder in encoders.items()}
    buffer = BytesIO()
    _draw_maps(spec[0], maps).savefig(buffer)
    return data_uri(buffer)


def _last_block(encoder: EATEncoder, spec: Tensor) -> Tensor:
    """Return the mean over heads `[T/16, F/16]`."""
    return cls_attention(encoder, spec)[0].mean(dim=0)


def _draw_maps(spec: Tensor, maps: dict[str, Tensor]) -> Figure:
    seconds = spec.shape[0] * HOP / SAMPLE_RATE
    figure = new_figure(9, 1.6 + 1.5 * (1 + len(maps)))
    panels = figure.subplots(1 + len(maps), 1, sharex=True, sharey=True)
    style: dict[str, Any] = {"origin": "lower", "aspect": "auto"}
    style |= {"extent": (0, seconds, 0, spec.shape[1])}
    image = panels[0].imshow(spec.T.numpy(), cmap="magma", **style)
    panels[0].set_title("log-mel spectrogram", loc="left", fontsize=11)
    figure.colorbar(image, ax=panels[0], label="energy", pad=0.01)
    for axes, (name, weights) in zip(panels[1:], maps.items(), strict=True):
        share = weights / weights.sum()
        image = axes.imshow(share.T.numpy(), cmap="viridis", vmin=0, **style)
        axes.set_title(f"attention of the CLS token, {name}", loc="left", fontsize=11)
        figure.colorbar(image, ax=axes, label="share", pad=0.01)
    panels[-1].set_xlabel("time (s)", fontsize=11)
    figure.supylabel("mel bin", fontsize=11)
    return figure


def data_uri(png: BytesIO) -> str:
    """Return a PNG file as the source of an image within the page."""
    return "data:image/png;base64," + b64encode(png.getvalue()).decode()


def open_checkpoint(run: Run) -> Checkpoint | None:
    """Return the run's model; None before the first one was written."""
    folder = Path(run.folder) / "model"
    return Checkpoint.read(folder) if folder.is_dir() else None
