"""EAT pre-training in one module: student, teacher and the objective between them.

The K clones of a clip share its patch embeddings and its targets, so both are computed
once per clip; the student encodes each clone's visible patches only.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.model.patching import grid_of
from eat.pretraining.masking import Masks
from eat.pretraining.teacher import EMATeacher
from eat.pretraining.ufo import frame_loss, utterance_loss
from eat.utils.random import Generators, normal


@dataclass
class PretrainingOutput:
    """Losses of a batch, all scalars, and what they compare.

    Attributes
    ----------
    loss
        ``frame_loss + utterance_weight * utterance_loss``.
    frame_loss
        Mean over masked patches of ``|error|^2 / sqrt(D)``.
    utterance_loss
        Mean over the B*K clones of ``|error|^2 / sqrt(D)``.
    targets
        The teacher's targets `[B, N, D]`.
    predictions
        The student's predictions at the masked patches `[B*K, N-V, D]`, in the order
        of ``masks.ids_mask``.
    """

    loss: Tensor
    frame_loss: Tensor
    utterance_loss: Tensor
    targets: Tensor
    predictions: Tensor


class EATStudent(nn.Module):
    """Encode the visible patches and decode the masked ones.

    Parameters
    ----------
    encoder
        Encoder of the visible patches.
    decoder
        Decoder of the whole grid.
    mask_noise_std
        Standard deviation of the noise that the decoder sees at masked patches.
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
    ) -> tuple[Tensor, Tensor]:
        """Return each clone's CLS token and its predictions at the masked patches.

        Parameters
        ----------
        spec
            Normalized log-mel `[B, T, F]`.
        masks
            Masks of the B*K clones.
        noise
            Noise at the masked patches `[B*K, N, D]`; drawn if not given.
        generator
            Generator of the noise, for the batch or for each of its clips.

        Returns
        -------
        tuple
            CLS tokens `[B*K, D]`, which predict the utterance, and predictions
            `[B*K, N-V, D]`, in the order of ``masks.ids_mask``.
        """
        visible = self.mask(self.encoder.embed(spec), masks)
        encoded = self.encoder.encode(visible)
        if noise is None:
            noise = self.draw_noise(len(spec), masks, generator)
        grid = self.fill(encoded.patches, masks, noise)
        decoded = self.decoder(grid.unflatten(1, grid_of(*spec.shape[1:])))
        predictions = self.decoder.proj(take(decoded.flatten(1, 2), masks.ids_mask))
        return encoded.cls, predictions

    def mask(self, patches: Tensor, masks: Masks) -> Tensor:
        """Clone `[B, N, D]` K times and keep each clone's visible `[B*K, V, D]`."""
        batch, _, dim = patches.shape
        kept = masks.ids_keep.view(batch, -1, masks.ids_keep.shape[1], 1)
        clones = patches[:, None].expand(-1, kept.shape[1], -1, -1)
        return clones.gather(2, kept.expand(-1, -1, -1, dim)).flatten(0, 1)

    def draw_noise(
        self, batch: int, masks: Masks, generator: Generators | None
    ) -> Tensor:
        """Draw noise for the whole grid `[B*K, N, D]`, of the type of the tokens."""
        rows, patches = masks.mask.shape
        token = self.encoder.cls_token
        dtype, std = self.encoder.token_dtype, self.mask_noise_std
        shape = (rows // batch, patches, token.shape[-1])
        if generator is None:
            noise = token.new_empty(batch, *shape, dtype=dtype).normal_(std=std)
        else:
            noise = normal(batch, shape, generator, dtype, std)
        return noise.flatten(0, 1)

    @staticmethod
    def fill(visible: Tensor, masks: Masks, noise: Tensor) -> Tensor:
        """Put visible tokens `[B*K, V, D]` at their places in a grid of noise."""
        index = masks.ids_keep[..., None].expand(-1, -1, visible.shape[-1])
        return noise.to(visible.dtype).scatter(1, index, visible)


class EATForPreTraining(nn.Module):
    """Student and teacher, with the Utterance-Frame Objective between them.

    The training loop trains this module, DDP wraps it, and
    :func:`eat.load_pretraining` returns it.

    Parameters
    ----------
    student
        The trainable half.
    teacher
        The moving average of the student's encoder.
    utterance_weight
        Weight of the mean utterance loss relative to the mean frame loss.
    """

    def __init__(
        self, student: EATStudent, teacher: EMATeacher, utterance_weight: float = 192.0
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.utterance_weight = utterance_weight

    def forward(
        self,
        spec: Tensor,
        masks: Masks | Tensor,
        noise: Tensor | None = None,
        generator: Generators | None = None,
        update_center: bool = False,
    ) -> PretrainingOutput:
        """Compute the losses of a batch of B clips with K clones each.

        Parameters
        ----------
        spec
            Normalized log-mel `[B, T, F]`.
        masks
            Masks of the B*K clones, drawn by a mask sampler or given as `[B*K, N]`
            bool or uint8, 1 = masked; row ``b * K + k`` is clone k of clip b.
        noise
            Noise at the masked patches `[B*K, N, D]`; drawn if not given.
        generator
            Generator of the noise, for the batch or for each of its clips.
        update_center
            Let a teacher that centers its targets learn from this batch.
        """
        if not isinstance(masks, Masks):
            masks = Masks.from_mask(masks)
        cls, predictions = self.student(spec, masks, noise, generator)
        targets = self.teacher.targets(spec, update_center)
        frame = frame_loss(predictions, targets.patches, masks)
        utterance = utterance_loss(cls, targets.utterance)
        loss = frame + self.utterance_weight * utterance
        return PretrainingOutput(loss, frame, utterance, targets.patches, predictions)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Select the tokens of `[B, N, D]` at the indices `[B, I]`."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))
