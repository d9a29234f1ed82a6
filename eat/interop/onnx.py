"""Checkpoints as ONNX: one file from waveform to features and scores.

The graph contains the whole front end, so that a program in any language gives it the
samples and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eat._version import __version__
from eat.audio.frontend import FFT, FLOOR, HOP, PREEMPHASIS, SAMPLE_RATE, WINDOW, LogMel
from eat.errors import CheckpointError, ExperimentError
from eat.interop.loading import Checkpoint
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder
from eat.model.patching import grid_of
from eat.utils.files import new_path

OPSET = 20
MAX_BYTES = 2**31 - 2**20  # of a protobuf file
TOLERANCE = 1e-4  # largest difference from PyTorch
MEL_BANKS = "frontend.log_mel.mel_banks"


# What the graph computes from `wav` [B, S], in its order; only classifiers have scores.
OUTPUTS = {
    "scores": "scores of the classes [B, C]",
    "features": "CLS token of the last block [B, D]",
    "frames": "patch tokens of the last block, one mean for every 160 ms [B, T/16, D]",
    "spectrogram": "normalized log-mel, the input of the encoder [B, T, F]",
}


class OnnxLogMel(nn.Module):
    """A front end for clips of one length, of operations that ONNX has.

    Parameters
    ----------
    log_mel
        The front end, whose constants are used.
    """

    def __init__(self, log_mel: LogMel) -> None:
        super().__init__()
        self.log_mel = log_mel

    def forward(self, wav: Tensor) -> Tensor:
        """Compute the normalized log-mel `[B, T, F]` of clips `[B, S]`."""
        # Always of T frames: a graph of fixed shapes is faster, and the frames that
        # are not in the clip are replaced.
        num_frames = self.log_mel.num_frames
        used = (num_frames - 1) * HOP + WINDOW
        padded = F.pad(wav - wav.mean(dim=1, keepdim=True), (0, used))[:, :used]
        raw = self._raw(padded)
        ends = torch.arange(num_frames, device=wav.device) * HOP + WINDOW
        raw = raw.masked_fill((ends > wav.shape[1])[:, None], 0.0)
        return (raw - self.log_mel.mean) / (2 * self.log_mel.std)

    def _raw(self, wav: Tensor) -> Tensor:
        # A window is 2.5 hops; `unfold` would store the place of each sample.
        hops = F.pad(wav, (0, 3 * HOP - WINDOW)).unflatten(1, (-1, HOP))
        third = hops[:, 2:, : WINDOW - 2 * HOP]
        frames = torch.cat([hops[:, :-2], hops[:, 1:-1], third], dim=2)
        frames = frames - frames.mean(dim=2, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        emphasized = (frames - PREEMPHASIS * previous) * self.log_mel.window
        spectrum = torch.fft.rfft(emphasized, FFT)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.log_mel.mel_banks).clamp(min=FLOOR).log()


class OnnxModel(nn.Module):
    """The module that is exported: front end, network and readout of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        log_mel = checkpoint.frontend()
        self.frontend = OnnxLogMel(log_mel)
        self.classifier: EATClassifier | None = None
        if checkpoint.kind == "classifier":
            self.classifier = checkpoint.classifier()
        self.encoder: EATEncoder = (
            self.classifier.encoder if self.classifier else checkpoint.encoder()
        )
        self.multi_label = checkpoint.multi_label
        self.grid = grid_of(log_mel.num_frames)
        # The table may be for minutes of audio, and would be a part of the file.
        used = self.encoder.positions[: self.grid[0] * self.grid[1]]
        self.encoder.positions = used.clone()

    def forward(self, wav: Tensor) -> tuple[Tensor, ...]:
        """Return the `OUTPUTS` of clips `[B, S]`."""
        spectrogram = self.frontend(wav)
        encoded = self.encoder(spectrogram)
        frames = encoded.patches.unflatten(1, self.grid).mean(dim=2)
        outputs = (encoded.cls, frames, spectrogram)
        if self.classifier is None:
            return outputs
        logits = self.classifier.classify(encoded)
        scores = logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)
        return scores, *outputs


def export_onnx(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    int8: bool = False,
    opset: int = OPSET,
) -> float:
    """Write a checkpoint as an ONNX file: `wav` `[B, S]` in, the `OUTPUTS` out.

    Waveforms are float32 at 16 kHz in [-1, 1], clips of a batch equally long; a clip is
    padded or cut to the model's frames. The metadata has the names of the classes.

    Parameters
    ----------
    source
        A checkpoint, see `eat.from_pretrained`.
    out
        The file to write, which must not exist.
    int8
        Store the weights of linear layers in 8 bits: about a quarter of the size.
    opset
        Version of ONNX's operators.

    Returns
    -------
    float
        Largest difference of a score, or without classes a feature, from PyTorch's.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing, corrupt, too large for one file, or masks the
        padding.
    ExperimentError
        If `out` exists, its folder or a package is missing, or the result is not
        PyTorch's.
    """
    _require_packages()
    checkpoint = Checkpoint.read(Path(source))
    checkpoint.require_no_mask("the graph")
    model = OnnxModel(checkpoint).eval()
    size = sum(4 * tensor.numel() for tensor in model.state_dict().values())
    if size > MAX_BYTES:
        raise CheckpointError(
            f"{source}: {size} bytes, more than an ONNX file can hold"
        )
    with new_path(out) as path, _quiet():
        _write(model, path, _metadata(checkpoint, model), opset)
        difference = _difference(model, path)
        if difference > TOLERANCE:
            raise ExperimentError(
                f"{out}: differs from PyTorch by {difference:.1g} (try another --opset "
                "or another version of torch, onnxscript or onnxruntime)"
            )
        if int8:
            _quantize(path)
            difference = _difference(model, path)
    return difference


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings of the exporter and of the quantization, which concern others."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _require_packages() -> None:
    names = ("onnx", "onnxruntime", "onnxscript")
    if missing := [name for name in names if find_spec(name) is None]:
        raise ExperimentError(
            f"ONNX export: needs {', '.join(missing)} (pip install 'eat-toolkit[onnx]')"
        )


def _metadata(checkpoint: Checkpoint, model: OnnxModel) -> dict[str, str]:
    """Return what a program needs to know about the model, as ONNX's strings."""
    log_mel = model.frontend.log_mel
    facts: dict[str, Any] = {
        "sample_rate": SAMPLE_RATE,
        "max_samples": (log_mel.num_frames - 1) * HOP + WINDOW,
        "frontend": log_mel.config,
        "encoder": model.encoder.config,
        "eat_version": __version__,
    }
    if model.classifier:
        facts["labels"] = checkpoint.labels
        facts["multi_label"] = model.multi_label
    return {name: json.dumps(value) for name, value in facts.items()}


def _write(
    model: OnnxModel, path: Path, metadata: Mapping[str, str], opset: int
) -> None:
    names = [*OUTPUTS] if model.classifier else [*OUTPUTS][1:]
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("samples")}
    program = torch.onnx.export(
        model,
        (torch.zeros(2, SAMPLE_RATE),),
        dynamo=True,
        dynamic_shapes=(sizes,),
        input_names=["wav"],
        output_names=names,
        opset_version=opset,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    # Traces of the source code, with the paths of this machine.
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.input):
        del part.metadata_props[:]
    for output in proto.graph.output:
        del output.metadata_props[:]
        output.doc_string = OUTPUTS[output.name]
    for name, value in metadata.items():
        proto.metadata_props.add(key=name, value=value)
    path.write_bytes(proto.SerializeToString())


def _difference(model: OnnxModel, path: Path) -> float:
    """Run both on a second of noise; compare the first output."""
    import onnxruntime

    wav = torch.randn(1, SAMPLE_RATE, generator=torch.Generator().manual_seed(0)) / 10
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"wav": wav.numpy()})[0]
    with torch.no_grad():
        expected = model(wav)[0].numpy()
    return float(np.abs(found - expected).max())


def _quantize(path: Path) -> None:
    """Replace the weights of the linear layers by 8-bit integers."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    graph = onnx.load(path).graph
    # The mel bands of the front end need all digits. The matrices of attention are no
    # weights and remain as they are, and so does the convolution of the patches.
    excluded = [node.name for node in graph.node if MEL_BANKS in node.input]
    assert excluded
    quantize_dynamic(
        path,
        path,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=excluded,
        per_channel=True,
        reduce_range=True,  # 7 bits: CPUs without VNNI would overflow
    )
