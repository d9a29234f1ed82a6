"""Signals that distinguish a healthy pre-training from a collapsed one.

All are computed from a batch of targets or predictions:

* `feature_std`: standard deviation over tokens, monitored by data2vec 2.0 and EAT. Near
  zero, all tokens have the same features.
* `between_clip_variance`: the share of that variance that lies between clips. Targets
  that depend only on the position have a standard deviation of 1 and a share of 0: the
  network learns a map of positions, and the loss looks healthy.
* `effective_rank`: the number of directions in which the features vary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from eat.errors import CollapseError

CONSTANT = (
    "collapse: {name} {{value:.3g}} < {{limit:g}}, {what} are nearly the same for all "
    "patches (try a lower lr, a longer warm-up or a higher EMA decay, and look for "
    "silent clips in the input)"
)
TARGETS = CONSTANT.format(name="target_std", what="the teacher's targets")
PREDICTIONS = CONSTANT.format(name="prediction_std", what="the decoder's predictions")
POSITIONAL = (
    "positional collapse: between_clip_variance {value:.3g} < {limit:g}, the targets "
    "depend on the position of a patch but not on the clip (try a smaller "
    "position_scale, center_momentum > 0, smaller mask blocks, a smaller batch or a "
    "larger utterance_weight)"
)


def feature_std(x: Tensor) -> Tensor:
    """Return the standard deviation over tokens `[M, D]`, averaged over channels.

    ``mean_d sqrt(var_m x[m, d] + 1e-6)``, the ``target_var`` and ``pred_var`` of the
    official code (which are standard deviations, not variances) if the tokens are those
    of masked patches: about 1 for healthy layer-normalized targets, 0.001 if constant.
    """
    return (x.float().var(dim=0) + 1e-6).sqrt().mean()


def between_clip_variance(x: Tensor) -> Tensor:
    """Return the share of the variance that lies between the B clips of `[B, N, D]`.

    It is 1 if all differences are between clips, 0 if x is a function of the position
    only, and NaN for a single clip or constant x.

    With ``W`` the variance over clips at a fixed position and ``P`` the variance of the
    position means, both unbiased, the share is ``W / (W + P)``. ``P`` is the two-way
    variance component ``var_n(mean_b x) - R / B``: averages over only B clips vary by
    ``R / B`` on their own, with ``R`` the mean square of the residual after subtracting
    clip means and position means. The expected value is independent of the batch size.
    """
    x = x.float()
    num_clips, num_positions, _ = x.shape
    if num_clips < 2:
        return x.new_tensor(math.nan)
    position_means, clip_means = x.mean(dim=0), x.mean(dim=1, keepdim=True)
    between_clips = x.var(dim=0).mean()
    residual = x - clip_means - (position_means - position_means.mean(dim=0))
    freedom = (num_clips - 1) * (num_positions - 1)
    unexplained = residual.square().sum(dim=(0, 1)).mean() / freedom
    between_positions = position_means.var(dim=0).mean() - unexplained / num_clips
    return between_clips / (between_clips + between_positions.clamp_min(0))


def effective_rank(x: Tensor) -> Tensor:
    """Return the number of directions in which tokens `[M, D]` vary, a real number.

    ``exp(-sum_i p_i ln p_i)`` with p the eigenvalues of the covariance divided by their
    sum: r for data spread evenly over r directions, NaN for constant data. (Roy and
    Vetterli 2007 use singular values; their squares, used here, are less sensitive to a
    floor of small noise.)
    """
    x = x.double() - x.double().mean(dim=0)  # not affected by autocast
    gram = x.T @ x if len(x) >= x.shape[1] else x @ x.T
    spectrum = torch.linalg.eigvalsh(gram).clamp_min(0)
    return torch.special.entr(spectrum / spectrum.sum()).sum().exp()


class CollapseMonitor:
    """Warns, or stops the run, when the training signals leave the healthy range.

    Parameters
    ----------
    warn_std, stop_std
        Warn, or stop, if the standard deviation of targets or predictions is below.
    warn_between_clip_variance, stop_between_clip_variance
        The same for the between-clip variance of the targets.
    grace_steps
        First steps, which are not checked: an untrained network is not collapsed.
    """

    def __init__(
        self,
        warn_std: float,
        warn_between_clip_variance: float,
        stop_std: float | None = None,
        stop_between_clip_variance: float | None = None,
        grace_steps: int = 0,
    ) -> None:
        between_clips = warn_between_clip_variance, stop_between_clip_variance
        self.rules = (
            ("target_std", warn_std, stop_std, TARGETS),
            ("prediction_std", warn_std, stop_std, PREDICTIONS),
            ("between_clip_variance", *between_clips, POSITIONAL),
        )
        self.grace_steps = grace_steps
        self.warned: set[str] = set()

    def check(self, step: int, record: Mapping[str, float]) -> list[str]:
        """Compare the signals of a step with the limits; return new warnings.

        The record contains ``target_std``, ``prediction_std`` and
        ``between_clip_variance``, NaN if unknown. A warning is one line, repeated only
        after its signal has recovered; a signal below its stopping limit raises
        `CollapseError`.
        """
        if step < self.grace_steps:
            return []
        warnings = []
        for name, warn, stop, text in self.rules:
            value = float(record[name])
            if stop is not None and value < stop:
                reason = text.format(value=value, limit=stop)
                raise CollapseError(f"stopped at step {step} by {reason}")
            if value < warn and name not in self.warned:
                self.warned.add(name)
                warnings.append(text.format(value=value, limit=warn))
            elif value >= warn:
                self.warned.discard(name)
        return warnings
