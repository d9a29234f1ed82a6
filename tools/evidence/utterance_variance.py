"""Measure how much of the targets' variance the utterance target holds.

EAT normalizes each layer of the teacher over the patches of a clip, which makes the
mean over patches 0 in every clip and channel. The utterance target is the mean over
patches of the targets. All it holds is what the last step, a layer norm over channels,
leaves of it: a patch with a small norm counts more than one with a large norm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from eat.interop.loading import Checkpoint, build_pretraining
from eat.pretraining.model import EATForPreTraining
from eat.pretraining.ufo import average_layers, clip_average, normalize_targets
from eat.utils.versions import versions
from evidence.clips import LabeledClips
from evidence.results import write_result
from evidence.studies import JobFactory, Row

FILE = "utterance_variance.json"
MODELS = ("untrained", "trained", "trained, centered", "trained, lambda 0")
ROWS = ("default", "lambda 0")  # whose models of seed 1 are measured
OFFICIAL_WEIGHT = 192  # lambda of 1, summed over 12 clips x 16 clones


def variance(x: Tensor) -> float:
    """Return the variance of `[M, D]` over M, averaged over the D channels."""
    return x.double().var(dim=0).mean().item()


@torch.no_grad()
def measure(
    model: EATForPreTraining, batches: list[Tensor], center: Tensor | None = None
) -> dict[str, float]:
    """Return variances and losses of a model, for clips that it did not see.

    Parameters
    ----------
    model
        Student and teacher.
    batches
        Normalized log-mel `[B, T, F]`, at least two clips in all.
    center
        A mean over clips `[N, D]` to subtract, see :class:`EMATeacher`; EAT has none.

    Returns
    -------
    dict
        ``patch_variance`` and ``utterance_variance``: of the targets, over patches and
        over clips; ``share``: the second divided by the first. ``share_before_norm``:
        the same of the layers before the instance norm. ``share_before_layer_norm``:
        of the averaged layers between the two norms.
        ``weight_of_share``: the share times the official weight of 192, the ratio of
        what the two losses can gain.
        ``utterance_loss``, ``cls_power``, ``patch_power``, ``gain``: the student's loss
        on full clips, the mean squares of its CLS and patch tokens, and that of the
        last norm's gain, which both share. ``utterance_loss_of_mean``: of an output
        that is the same for all clips. ``unit_loss``: of tokens that have variance 1
        and know nothing of a target, which is that of untrained CLS tokens.
    """
    progress = tqdm(batches, "targets", leave=False, disable=None)
    parts = [_tensors(model, spec, center) for spec in progress]
    target, average, raw, raw_mean, cls, tokens = (
        torch.cat(part) for part in zip(*parts, strict=True)
    )
    utterance = target.mean(dim=1)
    share = variance(utterance) / variance(target.flatten(0, 1))
    root = target.shape[-1] ** 0.5
    norm = f"blocks.{len(model.student.encoder.blocks) - 1}.norm2.weight"
    between_norms = variance(average.mean(dim=1)) / variance(average.flatten(0, 1))
    return {
        "clips": len(target),
        "width": target.shape[-1],
        "patch_variance": variance(target.flatten(0, 1)),
        "utterance_variance": variance(utterance),
        "share": share,
        "share_before_layer_norm": between_norms,
        "share_before_norm": variance(raw_mean) / variance(raw.flatten(0, 1)),
        "weight_of_share": OFFICIAL_WEIGHT * share,
        "unit_loss": root,
        "utterance_loss": (cls - utterance).square().mean().item() * root,
        "utterance_loss_of_mean": variance(utterance) * root,
        "cls_power": cls.square().mean().item(),
        "patch_power": tokens.square().mean().item(),
        "gain": model.student.encoder.get_parameter(norm).square().mean().item(),
    }


def _tensors(
    model: EATForPreTraining, spec: Tensor, center: Tensor | None
) -> tuple[Tensor, ...]:
    """Return a batch's targets, layers with and without norm, CLS and patch tokens."""
    layers = model.teacher.encoder(spec, return_ffn=True).ffn_outputs
    layers = [layer[:, 1:] for layer in layers]
    average = average_layers(layers)
    if center is not None:
        average -= center[: average.shape[1]]  # without a row of the utterance
    raw = torch.stack(layers).mean(dim=0)
    out = model.student.encoder(spec)
    target = normalize_targets(average)
    return target, average, raw, clip_average(layers), out.cls, out.patches


def untrained(config: Mapping[str, Any], seed: int = 1) -> EATForPreTraining:
    """Return a model of a checkpoint's config with its initial random weights."""
    torch.manual_seed(seed)
    return build_pretraining(config).eval()


def write_variances(factory: JobFactory, rows: Iterable[Row], results: Path) -> None:
    """Write the variances of the first models of `ROWS`, and of an untrained one."""
    folders = [factory.pretraining(row, 1).folder / "model" for row in rows]
    checkpoint, without_loss = map(Checkpoint.read, folders)
    model = checkpoint.pretraining().eval()
    clips = LabeledClips(factory.manifests, factory.corpus, factory.labeled_clips)
    batches = clips.normalized("eval", checkpoint.frontend())
    measured = (
        measure(untrained(checkpoint.config), batches),
        measure(model, batches),
        measure(model, batches, model.teacher.center),
        measure(without_loss.pretraining().eval(), batches),
    )
    variances = dict(zip(MODELS, measured, strict=True))
    names = [folder.parent.name for folder in folders]
    head = {"models": names, "versions": versions()}
    write_result(results / FILE, {**head, "variances": variances})
