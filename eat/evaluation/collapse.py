"""What tells a healthy pre-training from a collapsed one.

Three numbers about a batch of targets or predictions:

* `feature_std`: the spread over tokens, the guard of data2vec 2.0 and EAT. Near zero,
  everything is one vector.
* `between_clip_variance`: the share of that variance which lies between clips. Targets
  that depend on the position alone keep a standard deviation of 1 and a share of 0: the
  network then learns a map of positions, while the loss looks fine.
* `effective_rank`: how many directions the spread has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from eat.errors import CollapseError

POSITIONAL = (
    "positional collapse: between_clip_variance {value:.3g} < {limit:g}, the targets "
    "tell where a patch is but not which clip; try a smaller position_scale, "
    "center_momentum > 0, smaller mask blocks, a smaller batch or a larger "
    "utterance_weight"
)
TARGETS = (
    "collapse: target_std {value:.3g} < {limit:g}, the teacher gives all patches "
    "nearly the same target; try a lower lr, a longer warm-up or a higher EMA decay, "
    "and look for silent clips in the input"
)
PREDICTIONS = (
    "collapse: prediction_std {value:.3g} < {limit:g}, the decoder predicts "
    "nearly the same vector for all patches; try a lower lr, a longer warm-up or a "
    "higher EMA decay, and look for silent clips in the input"
)


def feature_std(x: Tensor) -> Tensor:
    """Standard deviation over tokens, averaged over the channels.

    ``mean_d sqrt(var_m x[m, d] + 1e-6)``, the ``target_var`` and ``pred_var`` of EAT's
    official code (which are deviations, not variances).

    Parameters
    ----------
    x : Tensor
        ``[M, D]``, at least two rows; the official logs take those of removed patches.

    Returns
    -------
    Tensor
        Scalar: about 1 for healthy layer-normed targets, 0.001 for constant ones.
    """
    return (x.float().var(dim=0) + 1e-6).sqrt().mean()


def between_clip_variance(x: Tensor) -> Tensor:
    """Share of the variance that lies between clips, position by position.

    With ``W`` the variance over clips at a fixed position and ``P`` the variance of
    the positions' own means, both without bias, the share is ``W / (W + P)``. ``P`` is
    the two-way variance component ``var_n(mean_b x) - R / B``: the spread of the
    positions' means over a batch, less the part ``R / B`` that they owe to averaging
    only B clips (``R``: mean square of what clip means and position means leave
    unexplained). So the expected value does not move with the batch size.

    Parameters
    ----------
    x : Tensor
        ``[B, N, D]``: B clips, N >= 2 positions.

    Returns
    -------
    Tensor
        Scalar in [0, 1]: 1 if all differences are between clips, 0 if x is a function
        of the position only, NaN for one clip or for constant x.
    """
    x = x.float()
    num_clips, num_positions, _ = x.shape
    if num_clips < 2:
        return x.new_tensor(math.nan)
    position_means, clip_means = x.mean(dim=0), x.mean(dim=1, keepdim=True)
    between_clips = x.var(dim=0).mean()
    rest = x - clip_means - (position_means - position_means.mean(dim=0))
    freedom = (num_clips - 1) * (num_positions - 1)
    unexplained = rest.square().sum(dim=(0, 1)).mean() / freedom
    between_positions = position_means.var(dim=0).mean() - unexplained / num_clips
    return between_clips / (between_clips + between_positions.clamp_min(0))


def effective_rank(x: Tensor) -> Tensor:
    """Number of directions in which the tokens differ, a real number from 1 to D.

    ``exp(-sum_i p_i ln p_i)`` with p the eigenvalues of the covariance divided by
    their sum. (Roy & Vetterli 2007 take singular values; their squares, used here,
    are less moved by a floor of small noise.)

    Parameters
    ----------
    x : Tensor
        ``[M, D]``.

    Returns
    -------
    Tensor
        Scalar: r for data spread evenly over r directions, NaN for constant data.
    """
    x = x.double() - x.double().mean(dim=0)  # autocast leaves float64 alone
    gram = x.T @ x if len(x) >= x.shape[1] else x @ x.T
    spectrum = torch.linalg.eigvalsh(gram).clamp_min(0)
    return torch.special.entr(spectrum / spectrum.sum()).sum().exp()


class CollapseMonitor:
    """Says in words when the training signals leave the healthy range.

    Parameters
    ----------
    warn_std : float
        Warn when the target or prediction standard deviation is below this.
    warn_between_clip_variance : float
        Warn when the targets' between-clip variance is below this.
    stop_std : float, optional
        Stop the run when either of them is below this.
    stop_between_clip_variance : float, optional
        Stop the run when the between-clip variance is below this.
    grace_steps : int
        Say nothing before this step: an untrained network is no sign of anything.
    """

    def __init__(
        self,
        warn_std: float,
        warn_between_clip_variance: float,
        stop_std: float | None = None,
        stop_between_clip_variance: float | None = None,
        grace_steps: int = 0,
    ) -> None:
        self.rules = (
            ("target_std", warn_std, stop_std, TARGETS),
            ("prediction_std", warn_std, stop_std, PREDICTIONS),
            (
                "between_clip_variance",
                warn_between_clip_variance,
                stop_between_clip_variance,
                POSITIONAL,
            ),
        )
        self.grace_steps = grace_steps
        self.warned: set[str] = set()

    def check(self, step: int, record: Mapping[str, float]) -> list[str]:
        """Compare one step's signals with the limits.

        Parameters
        ----------
        step : int
            The optimizer step.
        record : Mapping[str, float]
            Has ``target_std``, ``prediction_std`` and ``between_clip_variance``; NaN
            means unknown.

        Returns
        -------
        list of str
            New warnings, one line each. A warning is given once, and again only
            after its signal has recovered in between.

        Raises
        ------
        CollapseError
            If a signal is below its stopping limit.
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
