"""The EMA teacher: a slow copy of the student's encoder that makes the targets."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from eat.model.encoder import EATEncoder
from eat.pretraining.ufo import average_layers, normalize_targets


def ema_decay(
    step: int, start: float = 0.9998, end: float = 0.99999, anneal_steps: int = 100_000
) -> float:
    """Decay of the update that follows optimizer step `step` (the first is 1).

    Linear from `start` to `end` over `anneal_steps`, then constant.
    """
    if step >= anneal_steps:
        return end
    return end - (end - start) * (1 - step / anneal_steps)


class EMATeacher(nn.Module):
    """Frozen exponential moving average of an encoder, in fp32 and always evaluating.

    Make it after the student has its weights, or call :meth:`reset` once it does.

    Parameters
    ----------
    encoder
        The student's encoder to copy.
    center_momentum
        If given, the targets' running mean over clips at each position is subtracted
        before the last norm, and follows the batches with this momentum. Not part of
        EAT: it keeps small runs from predicting position alone. None is EAT.
    num_patches
        Grid size N, needed for centering.
    """

    def __init__(
        self,
        encoder: EATEncoder,
        center_momentum: float | None = None,
        num_patches: int | None = None,
    ) -> None:
        super().__init__()
        if center_momentum is not None and num_patches is None:
            raise ValueError("center_momentum is set: give num_patches as well")
        self.encoder = copy.deepcopy(encoder).float().eval().requires_grad_(False)
        self.center_momentum = center_momentum
        self.config = {"center_momentum": center_momentum, "num_patches": num_patches}
        self._means: list[Tensor] = []  # of this step's batches
        if center_momentum is not None:
            self.register_buffer("center", torch.zeros(num_patches, encoder.dim))

    def train(self, mode: bool = True) -> EMATeacher:
        """Stay in evaluation mode, whatever a training loop asks for."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, spec: Tensor, update_center: bool = False) -> Tensor:
        """Targets `[B, N, D]` of whole clips, normalized log-mel `[B, T, F]`.

        With `update_center` the running mean, if there is one, takes in this batch at
        the next :meth:`update`.
        """
        ffn_outputs = self.encoder(spec, return_ffn=True).ffn_outputs
        average = average_layers([output[:, 1:] for output in ffn_outputs])
        if self.center_momentum is None:
            return normalize_targets(average)
        targets = normalize_targets(average - self.center)
        if update_center:
            self._means.append(average.mean(dim=0))
        return targets

    def _move_center(self) -> None:
        """Take in the batches of a step, over accumulation and processes."""
        mean = torch.stack(self._means).mean(dim=0)
        self._means.clear()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(mean)
            mean /= torch.distributed.get_world_size()
        # One bad batch must not stay in the mean for good.
        mean = mean.where(mean.isfinite(), self.center)
        self.center.lerp_(mean, 1 - self.center_momentum)

    @torch.no_grad()
    def update(self, encoder: EATEncoder, decay: float) -> None:
        """Move towards the student: ``decay * teacher + (1 - decay) * student``.

        Call after the optimizer step with ``decay = ema_decay(step)``.
        """
        own = list(self.encoder.parameters())
        theirs = [parameter.float() for parameter in encoder.parameters()]
        torch._foreach_mul_(own, decay)
        torch._foreach_add_(own, theirs, alpha=1 - decay)
        if self._means:
            self._move_center()

    @torch.no_grad()
    def reset(self, encoder: EATEncoder) -> None:
        """Become a copy of the student's encoder."""
        self.update(encoder, decay=0.0)
