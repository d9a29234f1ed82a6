"""The teacher: a moving average of the student's encoder that computes the targets."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from eat.model.encoder import EATEncoder
from eat.pretraining.ufo import average_layers, clip_average, normalize_targets

UTTERANCE_TARGETS = ("patches", "clip")


class Targets(NamedTuple):
    """What the student predicts of each clip.

    Attributes
    ----------
    patches
        Targets of the patches `[B, N, D]`.
    utterance
        Target of the CLS token `[B, D]`.
    """

    patches: Tensor
    utterance: Tensor


def ema_decay(
    step: int, start: float = 0.9998, end: float = 0.99999, anneal_steps: int = 100_000
) -> float:
    """Return the decay of the update after optimizer step `step` (the first is 1).

    It is linear from `start` to `end` over `anneal_steps`, then constant.
    """
    if step >= anneal_steps:
        return end
    return end - (end - start) * (1 - step / anneal_steps)


class EMATeacher(nn.Module):
    """Exponential moving average of an encoder, in fp32 and in evaluation mode.

    Build it after the student has its weights, or call :meth:`reset` then.

    Parameters
    ----------
    encoder
        The student's encoder, which is copied.
    center_momentum
        If given, a running mean over clips at each position is subtracted from the
        targets before the last norm; this is its momentum. Not part of EAT: it
        prevents small runs from predicting the position only. None is EAT.
    num_patches
        Grid size N, needed for centering.
    average_top_k
        Number of last blocks that are averaged; all by default, which is EAT.
    utterance_target
        ``patches``, which is EAT: the mean of the patches' targets. Their instance norm
        has removed most of what distinguishes clips. ``clip``, not part of EAT: the
        mean over patches before that norm, centered over clips and layer-normalized;
        it needs `center_momentum`.
    """

    center: Tensor
    _sum: Tensor
    _batches: Tensor

    def __init__(
        self,
        encoder: EATEncoder,
        center_momentum: float | None = None,
        num_patches: int | None = None,
        average_top_k: int | None = None,
        utterance_target: str = "patches",
    ) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).float().eval().requires_grad_(False)
        self.center_momentum = center_momentum
        self.average_top_k = average_top_k
        self.utterance_target = utterance_target
        self.config = {
            "center_momentum": center_momentum,
            "num_patches": num_patches,
            "average_top_k": average_top_k,
            "utterance_target": utterance_target,
        }
        if utterance_target not in UTTERANCE_TARGETS:
            raise ValueError(
                f"utterance_target {utterance_target!r}: choose from "
                f"{', '.join(UTTERANCE_TARGETS)}"
            )
        if utterance_target == "clip" and center_momentum is None:
            raise ValueError("utterance_target clip: needs center_momentum")
        if center_momentum is not None:
            if num_patches is None:
                raise ValueError("center_momentum: needs num_patches")
            # A last row for the utterance, if it has a target of its own.
            rows = num_patches + (utterance_target == "clip")
            zeros = torch.zeros(rows, encoder.dim)
            self.register_buffer("center", zeros)
            # Sum of the means of this step's batches, and their number: no list, for
            # each length of which a compiler would start again.
            self.register_buffer("_sum", zeros.clone(), persistent=False)
            self.register_buffer("_batches", torch.zeros(()), persistent=False)

    def train(self, mode: bool = True) -> EMATeacher:
        """Stay in evaluation mode, also within a module that is trained."""
        return super().train(False)

    def forward(self, spec: Tensor, update_center: bool = False) -> Tensor:
        """Return the targets of the patches `[B, N, D]`, see :meth:`targets`."""
        return self.targets(spec, update_center).patches

    @torch.no_grad()
    def targets(self, spec: Tensor, update_center: bool = False) -> Targets:
        """Return the targets of full clips, normalized log-mel `[B, T, F]`.

        With `update_center` the running mean, if there is one, includes this batch from
        the next :meth:`update` on.
        """
        ffn_outputs = self.encoder(spec, return_ffn=True).ffn_outputs
        last = ffn_outputs[-(self.average_top_k or len(ffn_outputs)) :]
        patches = [output[:, 1:] for output in last]
        average = average_layers(patches)
        if self.utterance_target == "clip":
            average = torch.cat([average, clip_average(patches)[:, None]], dim=1)
        centered = average
        if self.center_momentum is not None:
            centered = average - self.center
            if update_center:
                self._sum += average.mean(dim=0)
                self._batches += 1
        targets = normalize_targets(centered)
        if self.utterance_target == "clip":
            return Targets(targets[:, :-1], targets[:, -1])
        return Targets(targets, targets.mean(dim=1))

    def _move_center(self, momentum: float) -> None:
        """Update the running mean with the step's batches, over all processes."""
        mean = self._sum / self._batches  # NaN without a batch
        self._sum.zero_()
        self._batches.zero_()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(mean)
            mean /= torch.distributed.get_world_size()
        # One batch with NaN must not spoil the mean permanently.
        mean = mean.where(mean.isfinite(), self.center)
        self.center.lerp_(mean, 1 - momentum)

    @torch.no_grad()
    def update(self, encoder: EATEncoder, decay: float) -> None:
        """Set the weights to ``decay * teacher + (1 - decay) * student``.

        Call this after the optimizer step, with ``decay = ema_decay(step)``.
        """
        own: list[Tensor] = list(self.encoder.parameters())
        theirs = [parameter.float() for parameter in encoder.parameters()]
        torch._foreach_mul_(own, decay)
        torch._foreach_add_(own, theirs, alpha=1 - decay)
        if self.center_momentum is not None:
            self._move_center(self.center_momentum)

    @torch.no_grad()
    def reset(self, encoder: EATEncoder) -> None:
        """Copy the weights of the student's encoder."""
        self.update(encoder, decay=0.0)
