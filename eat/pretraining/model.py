"""EAT pre-training in one module: student, teacher and objective."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.model.patching import grid_of
from eat.pretraining.masking import Masks
from eat.pretraining.teacher import EMATeacher
from eat.pretraining.ufo import UFOLoss, utterance_frame_objective
from eat.utils.random import Generators, normal


@dataclass
class StudentOutput:
    """What the student predicts.

    Attributes
    ----------
    cls
        CLS token of each clone `[B*K, D]`, the prediction of the utterance.
    predictions
        Predictions at the masked patches `[B*K, N-V, D]`, ordered as
        ``masks.ids_mask``.
    """

    cls: Tensor
    predictions: Tensor


class EATStudent(nn.Module):
    """Encoder and decoder in a single forward pass, which DDP and compile wrap.

    Parameters
    ----------
    encoder
        Encodes the visible patches.
    decoder
        Fills the grid.
    mask_noise_std
        Standard deviation of the noise that stands at the masked patches.
    """

    def __init__(
        self, encoder: EATEncoder, decoder: CNNDecoder, mask_noise_std: float = 0.01
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.mask_noise_std = mask_noise_std

    def forward(
        self,
        spec: Tensor,
        masks: Masks,
        noise: Tensor | None = None,
        generator: Generators | None = None,
    ) -> StudentOutput:
        """Predict the targets of masked patches and of the utterance.

        Parameters
        ----------
        spec
            Normalized log-mel `[B, T, F]`.
        masks
            Masks of the B*K clones.
        noise
            What stands at masked patches, `[B*K, N, D]`; drawn if not given.
        generator
            Source of the noise if that is drawn, for the batch or for each clip.
        """
        visible = self.mask(self.encoder.embed(spec), masks)
        encoded = self.encoder.encode(visible)
        if noise is None:
            noise = self.draw_noise(len(spec), masks, encoded.patches, generator)
        grid = self.fill(encoded.patches, masks, noise)
        decoded = self.decoder(grid.unflatten(1, grid_of(*spec.shape[1:])))
        predictions = self.decoder.proj(take(decoded.flatten(1, 2), masks.ids_mask))
        return StudentOutput(encoded.cls, predictions)

    def mask(self, patches: Tensor, masks: Masks) -> Tensor:
        """Clone `[B, N, D]` K times and keep each clone's visible `[B*K, V, D]`."""
        batch, _, dim = patches.shape
        kept = masks.ids_keep.view(batch, -1, masks.ids_keep.shape[1], 1)
        clones = patches[:, None].expand(-1, kept.shape[1], -1, -1)
        return clones.gather(2, kept.expand(-1, -1, -1, dim)).flatten(0, 1)

    def draw_noise(
        self, batch: int, masks: Masks, like: Tensor, generator: Generators | None
    ) -> Tensor:
        """Fresh noise for the whole grid `[B*K, N, D]`."""
        rows, patches = masks.mask.shape
        if generator is None:
            noise = torch.randn(rows, patches, like.shape[-1]).to(like)
        else:
            shape = (rows // batch, patches, like.shape[-1])
            noise = normal(batch, shape, generator, like.dtype).flatten(0, 1)
        return noise * self.mask_noise_std

    @staticmethod
    def fill(visible: Tensor, masks: Masks, noise: Tensor) -> Tensor:
        """Put visible tokens `[B*K, V, D]` in their places of a `[B*K, N, D]` grid."""
        index = masks.ids_keep[..., None].expand(-1, -1, visible.shape[-1])
        return noise.to(visible.dtype).scatter(1, index, visible)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens `[B, I, D]` of `[B, N, D]` at the indices `[B, I]`."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


class EATForPreTraining(nn.Module):
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
        self, spec: Tensor, mask: Tensor, noise: Tensor | None = None
    ) -> UFOLoss:
        """Losses of one batch.

        Parameters
        ----------
        spec
            Normalized log-mel `[B, T, F]`.
        mask
            `[B*K, N]` bool or uint8, 1 = masked; row ``b * K + k``.
        noise
            What stands at masked patches `[B*K, N, D]`; drawn if not given.
        """
        masks = Masks.from_mask(mask)
        output = self.student(spec, masks, noise)
        return utterance_frame_objective(
            output.cls,
            output.predictions,
            self.teacher(spec),
            masks,
            self.utterance_weight,
        )
