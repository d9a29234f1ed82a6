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
# Tokens that are encoded at a time, those of 8 and 64 clips of 10 s. A CPU encodes more
# of them no faster.
CPU_TOKENS = 8 * 513
GPU_TOKENS = 64 * 513
TOKEN_VALUES = 16  # largest number of values in memory, per token and width


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
    def clip_bytes(self) -> int:
        """Estimate of the memory that encoding a clip or window takes, in bytes."""
        return 4 * TOKEN_VALUES * self.num_tokens * self.encoder.dim

    @property
    def windows_at_once(self) -> int:
        """How many clips or windows are encoded at a time by default, a power of two.

        It depends on the model and the kind of device, not on what else is running.
        """
        most = CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS
        number = most // self.num_tokens
        if self.device.type == "cuda":
            memory = torch.cuda.get_device_properties(self.device).total_memory
            number = min(number, memory // 4 // self.clip_bytes)
        return 1 << (max(int(number), 1).bit_length() - 1)

    @property
    def num_tokens(self) -> int:
        """Number of tokens of a clip, patches and CLS."""
        bands = int(self.encoder.config["num_mels"]) // PATCH
        return self.frontend.num_frames // PATCH * bands + 1

    def forward(
        self, wav: Tensor, lengths: Tensor | None = None, return_layers: bool = False
    ) -> EncoderOutput:
        """Encode a batch of clips, each padded or cut to the model's frames.

        Parameters
        ----------
        wav
            Waveforms at 16 kHz in [-1, 1], `[B, S]`, zero-padded at the end, on any
            device.
        lengths
            Lengths in samples `[B]`; by default all clips are S samples long.
        return_layers
            Also return the outputs of all blocks.

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
        lengths = self._moved(lengths)
        valid = self.frontend.valid_frames(lengths) if self.mask_padding else None
        spec = self.frontend(wav, lengths)
        encoded = self._encode(spec, return_layers, valid_frames=valid)
        return EncoderOutput(
            encoded.cls.float(),
            encoded.patches.float(),
            [layer.float() for layer in encoded.layers],
            valid=encoded.valid,
        )

    def window_encoder(
        self, readout: Readout, windowing: Windowing
    ) -> Callable[[Sequence[Window]], Tensor]:
        """Return a function from windows to features, see `Readout.__call__`."""

        @torch.inference_mode()
        def encode(windows: Sequence[Window]) -> Tensor:
            """Encode a batch of windows."""
            wav, lengths = self._batch(windows)
            longest, valid = None, None
            if windowing.pad_to == "clip":
                valid = whole_patches(self.frontend.valid_frames(lengths))
                if readout.granularity != "clip":
                    # Also those of a last frame too short for the spectrogram.
                    frames = [window.frames(windowing.size) for window in windows]
                    valid = PATCH * lengths.new_tensor(frames)
                longest = int(valid.max())
                # Quicker without a mask.
                valid = None if valid.min() == longest else self._moved(valid)
            spec = self.frontend(wav, self._moved(lengths), longest)
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
        """Pad windows to a batch `[B, S]` on the model's device; lengths on the CPU."""
        wav = pad_sequence([window.wav for window in windows], batch_first=True)
        lengths = torch.tensor([len(window.wav) for window in windows])
        return self._moved(wav), lengths

    def _moved(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the model's device; nothing waits for it to get there."""
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

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
