"""Front end and network of a checkpoint as one module: waveforms to tokens, scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from eat.audio.frontend import HOP, SAMPLE_RATE, WINDOW, LogMel
from eat.inference.options import choose
from eat.inference.results import Readout
from eat.inference.windows import Window, Windowing
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder, EncoderOutput
from eat.model.patching import PATCH, whole_patches

PRECISIONS = ("fp32", "bf16")
# Windows of a recording that are encoded at a time: their memory is what counts.
CPU_WINDOWS = 2
GPU_WINDOWS = 32


class AudioNetwork(nn.Module):
    """Front end and network, frozen and in evaluation mode.

    The base of `AudioEncoder`, see there.
    """

    def __init__(
        self,
        frontend: LogMel,
        network: EATEncoder | EATClassifier,
        labels: Sequence[str] | None = None,
        precision: str = "fp32",
        multi_label: bool = True,
    ) -> None:
        super().__init__()
        choose("precision", precision, PRECISIONS)
        self.frontend = frontend
        self.network = network
        self.labels = labels
        self.precision = precision
        self.multi_label = multi_label
        self.eval().requires_grad_(False)

    @property
    def classifier(self) -> EATClassifier | None:
        """The classifier; None if the checkpoint was not fine-tuned."""
        return self.network if isinstance(self.network, EATClassifier) else None

    @property
    def encoder(self) -> EATEncoder:
        """The encoder, which is part of the classifier if there is one."""
        network = self.network
        return network.encoder if isinstance(network, EATClassifier) else network

    @property
    def mask_padding(self) -> bool:
        """Whether the model was fine-tuned with the padding of clips masked."""
        return self.classifier is not None and self.classifier.mask_padding

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.encoder.cls_token.device

    @property
    def max_samples(self) -> int:
        """Samples at 16 kHz that fit into the model's frames."""
        return (self.frontend.num_frames - 1) * HOP + WINDOW

    @property
    def max_seconds(self) -> float:
        """Seconds that fit into the model's frames."""
        return self.max_samples / SAMPLE_RATE

    @property
    def windows_at_once(self) -> int:
        """How many windows of long recordings to encode at a time."""
        return CPU_WINDOWS if self.device.type == "cpu" else GPU_WINDOWS

    def forward(self, wav: Tensor, lengths: Tensor | None = None) -> EncoderOutput:
        """Encode a batch of clips, each padded or cut to the model's frames.

        Parameters
        ----------
        wav
            Waveforms at 16 kHz in [-1, 1], `[B, S]`, zero-padded at the end, on any
            device.
        lengths
            Lengths in samples `[B]`; by default all clips are S samples long.

        Returns
        -------
        EncoderOutput
            ``cls`` `[B, D]` and ``patches`` `[B, N, D]`, fp32 on the model's device.
            The N patches include those of the padding. A model that was fine-tuned with
            masked padding attends to none; ``valid`` `[B, N]` tells which are not.
        """
        _check_batch(wav, lengths)
        wav = wav.to(self.device)
        if lengths is None:
            lengths = torch.full((len(wav),), wav.shape[1])
        lengths = lengths.to(self.device)
        valid = self.frontend.valid_frames(lengths) if self.mask_padding else None
        encoded = self._encode(self.frontend(wav, lengths), valid_frames=valid)
        return EncoderOutput(
            encoded.cls.float(), encoded.patches.float(), valid=encoded.valid
        )

    def window_encoder(
        self, readout: Readout, windowing: Windowing
    ) -> Callable[[Sequence[Window]], Tensor]:
        """Return a function from windows to features, see `Readout.__call__`."""

        @torch.inference_mode()
        def encode(windows: Sequence[Window]) -> Tensor:
            """Encode a batch of windows."""
            wav, lengths = self._batch(windows)
            if windowing.pad_to == "model":
                spec, valid = self.frontend(wav, lengths), None
            else:
                valid = whole_patches(self.frontend.valid_frames(lengths))
                if readout.granularity != "clip":
                    # Also those of a last frame too short for the spectrogram.
                    frames = [window.frames(windowing.size) for window in windows]
                    valid = PATCH * lengths.new_tensor(frames)
                longest = int(valid.max())
                spec = self.frontend(wav, lengths, longest)
                if valid.min() == longest:  # quicker without a mask
                    valid = None
            return readout(self._encode(spec, not readout.only_last, valid))

        return encode

    def window_scores(self) -> Callable[[Sequence[Window]], Tensor]:
        """Return a function from windows to scores `[B, C]`."""
        if self.classifier is None:
            raise ValueError(
                "tags: the model has no classifier (load a fine-tuned checkpoint)"
            )
        classify = self.classifier.classify

        @torch.inference_mode()
        def score(windows: Sequence[Window]) -> Tensor:
            """Score a batch of windows."""
            encoded = self(*self._batch(windows))
            logits = classify(encoded)
            return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)

        return score

    def _batch(self, windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
        """Pad windows to a batch `[B, S]` with lengths `[B]`, on the model's device."""
        wav = pad_sequence([window.wav for window in windows], batch_first=True)
        lengths = torch.tensor([len(window.wav) for window in windows])
        return wav.to(self.device), lengths.to(self.device)

    def _encode(
        self, spec: Tensor, layers: bool = False, valid_frames: Tensor | None = None
    ) -> EncoderOutput:
        bf16 = self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return self.encoder(spec, layers, valid_frames=valid_frames)


def _check_batch(wav: Tensor, lengths: Tensor | None) -> None:
    if wav.ndim != 2 or not wav.is_floating_point():
        raise ValueError(
            f"wav: expected floating-point samples [B, S] in [-1, 1], got {wav.dtype} "
            f"{list(wav.shape)} (one clip: wav[None])"
        )
    if lengths is None:
        return
    if lengths.shape != (len(wav),) or lengths.is_floating_point():
        raise ValueError(
            f"lengths: expected samples as integers [{len(wav)}], got {lengths.dtype} "
            f"{list(lengths.shape)} (relative lengths: multiply by wav.shape[1], round)"
        )
    if lengths.min() < 0 or lengths.max() > wav.shape[1]:
        raise ValueError(
            f"lengths: {lengths.tolist()}, but wav has {wav.shape[1]} samples"
        )
