"""The whole method in one module: student, teacher and objective."""

from __future__ import annotations

from torch import Tensor, nn

from eat.pretraining.masking import Masks
from eat.pretraining.student import EATStudent
from eat.pretraining.teacher import EMATeacher
from eat.pretraining.ufo import UFOLoss, utterance_frame_objective


class EATPretraining(nn.Module):
    """Student and teacher with the Utterance-Frame Objective between them.

    This is what :func:`eat.load_pretraining` returns. The training loop calls the
    same three parts itself, since only the student is wrapped for several processes.

    Parameters
    ----------
    student
        The trainable half.
    teacher
        The EMA half.
    utterance_weight
        Weight of the mean utterance loss against the mean frame loss.
    """

    def __init__(
        self, student: EATStudent, teacher: EMATeacher, utterance_weight: float = 192.0
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.utterance_weight = utterance_weight

    def forward(
        self, spec: Tensor, removed: Tensor, noise: Tensor | None = None
    ) -> UFOLoss:
        """Losses of one batch.

        Parameters
        ----------
        spec
            Normalised log-mel `[B, T, F]`.
        removed
            `[B*K, N]` bool or uint8, 1 = removed; row ``b * K + k``.
        noise
            What stands at removed patches `[B*K, N, D]`; drawn if not given.
        """
        masks = Masks.from_removed(removed)
        output = self.student(spec, masks, noise)
        return utterance_frame_objective(
            output.cls,
            output.predictions,
            self.teacher(spec),
            masks,
            self.utterance_weight,
        )
