"""Frozen features of the clips of a manifest, in one pass over the audio."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from tqdm import tqdm

from eat.data.dataset import Batch, ClipDataset, audio_dataset, collate
from eat.errors import ExperimentError
from eat.inference.audio_encoder import AudioEncoder
from eat.inference.reading import batches, default_threads, read_ahead
from eat.model.classifier import EATClassifier, mean_pool
from eat.model.encoder import EATEncoder, EncoderOutput
from eat.utils.files import atomic_path

POOLED = "pooled"
READ_CLIPS = 32  # spectrograms at a time


class TokenArray:
    """The rows of several arrays `[M, N+1, D]`, which stay where they are."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(part.shape[0] for part in parts)])
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *parts[0].shape[1:])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return some rows, in any order."""
        found = np.empty((len(rows), *self.shape[1:]), np.float16)
        for start, part in zip(self._starts, self._parts, strict=False):
            inside = (rows >= start) & (rows < start + part.shape[0])
            found[inside] = part[rows[inside] - start]
        return found


@dataclass(frozen=True, eq=False)
class ProbeFeatures:
    """Features of M clips, which may be mapped from files.

    Attributes
    ----------
    pooled
        Vectors of each of L layers, `[M, L, D]` in fp32, by name: ``cls``, the CLS
        token, and ``mean``, that of the patch tokens; statistics are ``mean+std`` of a
        single layer.
    tokens
        By layer, CLS token and patch tokens `[M, N+1, D]` in float16.
    """

    pooled: Mapping[str, Tensor]
    tokens: Mapping[int, np.ndarray] = field(default_factory=dict)

    def vectors(self, layer: int, pooling: str) -> Tensor:
        """Return the vectors of a layer, `[M, D]`; ``both``: CLS and mean, `[M, 2D]`.

        Raises `ValueError` if there are none of this name, `ExperimentError` if they
        are not finite.
        """
        names = ("cls", "mean") if pooling == "both" else (pooling,)
        if not self.pooled.keys() >= set(names):
            raise ValueError(f"pooling '{pooling}': choose from {list(self.pooled)}")
        found = torch.cat([self.pooled[name][:, layer] for name in names], dim=1)
        if not found.isfinite().all():
            raise ExperimentError(
                f"layer {layer}, {pooling}: features are NaN or infinite (choose other "
                "--layers, or a model that has not diverged)"
            )
        return found


def features_of(
    model: AudioEncoder,
    manifest: str | os.PathLike[str],
    data_folder: str | os.PathLike[str],
    token_layers: Sequence[int] = (),
    cache: Path | None = None,
) -> ProbeFeatures:
    """Encode the clips of a manifest; return the features of all layers.

    As in fine-tuning, clips are padded or cut to the model's number of frames.

    Parameters
    ----------
    model
        The model, see `eat.inference.features.from_pretrained`.
    manifest, data_folder
        A manifest of a prepare script, and what ``$data_root`` in it refers to.
    token_layers
        Layers, from 0, to also return all tokens of.
    cache
        A folder for the features of this model and manifest. What it contains is read,
        the rest is computed and written to it.

    Raises
    ------
    AudioError, ManifestError
        If a clip or the manifest cannot be read.
    ExperimentError
        If the disk has no room for the features, a file of the cache is corrupt, or the
        model masks padding, so that not all of its tokens mean something.
    """
    data = audio_dataset(manifest, data_folder, None, model.max_seconds)
    if token_layers:
        require_tokens(model)
    tokens, dim = model.num_tokens, model.encoder.dim
    arrays = {POOLED: _Array((2, len(model.encoder.blocks), dim), np.float32)}
    arrays |= {_name(n): _Array((tokens, dim), np.float16) for n in token_layers}
    found = _compute(model, data, arrays, cache)
    cls, mean = torch.from_numpy(found[POOLED]).unbind(dim=1)
    layers = {layer: found[_name(layer)] for layer in token_layers}
    return ProbeFeatures({"cls": cls, "mean": mean}, layers)


def require_tokens(model: AudioEncoder) -> None:
    """Raise `ExperimentError` if not all tokens of a model mean something."""
    if model.mask_padding:
        raise ExperimentError(
            "the model was fine-tuned with masked padding: its tokens of padding mean "
            "nothing (use a probe of the CLS token or the mean)"
        )


def untrained(model: AudioEncoder, seed: int) -> AudioEncoder:
    """Return a model of the same configuration with initial weights."""
    config: dict[str, Any] = {**model.encoder.config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = EATEncoder(**config)
        masking = EATClassifier(encoder, 1, mask_padding=True)
    network = masking if model.mask_padding else encoder
    copy = AudioEncoder(model.frontend, network, precision=model.precision)
    return copy.to(model.device)


def statistics_of(
    model: AudioEncoder,
    manifest: str | os.PathLike[str],
    data_folder: str | os.PathLike[str],
    statistics: Callable[[Tensor, Tensor], Tensor],
) -> ProbeFeatures:
    """Return features without a network, of the spectrograms that the model is given.

    `statistics` maps log-mel `[B, T, F]` and the numbers of frames without padding
    `[B]` to `[B, D]`, such as `eat.evaluation.baselines.log_mel_statistics`.
    """
    data = audio_dataset(manifest, data_folder, None, model.max_seconds)
    parts = []
    for batch in _read(data, READ_CLIPS, "reading"):
        wav, lengths = batch.wav.to(model.device), batch.lengths.to(model.device)
        spec = model.frontend(wav, lengths)
        parts.append(statistics(spec, model.frontend.valid_frames(lengths)).cpu())
    return ProbeFeatures({"mean+std": torch.cat(parts)[:, None]})


@dataclass(frozen=True)
class _Array:
    """The shape of a clip's values, and their type."""

    shape: tuple[int, ...]
    dtype: type[np.floating]

    def bytes(self, clips: int) -> int:
        """Return the size of the array of so many clips."""
        return clips * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def _name(layer: int) -> str:
    return f"layer{layer}"


def _compute(
    model: AudioEncoder,
    data: ClipDataset,
    arrays: dict[str, _Array],
    cache: Path | None,
) -> dict[str, np.ndarray]:
    """Return the arrays, `[M, ...]` each; those that are not in the cache are new."""
    if cache is None:
        new = {n: np.empty((len(data), *a.shape), a.dtype) for n, a in arrays.items()}
        _encode(model, data, new)
        return new
    cache.mkdir(parents=True, exist_ok=True)
    paths = {name: cache / f"{name}.npy" for name in arrays}
    found: dict[str, np.ndarray] = {
        name: _open(path, (len(data), *arrays[name].shape), arrays[name].dtype)
        for name, path in paths.items()
        if path.exists()
    }
    missing = {name: arrays[name] for name in arrays.keys() - found.keys()}
    if not missing:
        return found
    _require_space(cache, sum(array.bytes(len(data)) for array in missing.values()))
    with ExitStack() as files:
        mapped = {
            name: open_memmap(
                files.enter_context(atomic_path(paths[name], sync=True)),
                "w+",
                array.dtype,
                (len(data), *array.shape),
            )
            for name, array in missing.items()
        }
        _encode(model, data, mapped)
        for values in mapped.values():
            values.flush()
    return {**found, **mapped}


def _open(path: Path, shape: tuple[int, ...], dtype: type[np.floating]) -> np.memmap:
    """Map an array of the cache; what is written to it stays in memory."""
    with suppress(ValueError):  # numpy's error of a damaged file
        found = open_memmap(path, "c")
        if found.shape == shape and found.dtype == dtype:
            return found
    raise ExperimentError(
        f"{path}: corrupt, not {list(shape)} in {np.dtype(dtype)} (delete it, then "
        "re-run the same command)"
    )


def _encode(
    model: AudioEncoder, data: ClipDataset, new: Mapping[str, np.ndarray]
) -> None:
    """Fill the arrays with the features of all clips."""
    first = 0
    for batch in _read(data, model.windows_at_once, "encoding"):
        with torch.inference_mode():
            encoded = model(batch.wav, batch.lengths, return_layers=True)
        rows = slice(first, first := first + len(batch.ids))
        if POOLED in new:
            new[POOLED][rows] = pool_layers(encoded).cpu().numpy()
        for number, layer in enumerate(encoded.layers):
            if (array := new.get(_name(number))) is not None:
                array[rows] = layer.half().cpu().numpy()


def pool_layers(encoded: EncoderOutput) -> Tensor:
    """Return CLS token and mean of the patches of each layer, `[B, 2, L, D]`."""
    cls = torch.stack([layer[:, 0] for layer in encoded.layers], dim=1)
    means = [mean_pool(layer[:, 1:], encoded.valid) for layer in encoded.layers]
    return torch.stack([cls, torch.stack(means, dim=1)], dim=1)


def _read(data: ClipDataset, size: int, what: str) -> Iterator[Batch]:
    """Yield batches of all clips, in order."""
    clips = read_ahead(data.__getitem__, range(len(data)), default_threads(), 2 * size)
    with tqdm(None, f"  {what}", len(data), False, unit="clip", disable=None) as bar:
        for items in batches(clips, size):
            yield collate(items)
            bar.update(len(items))


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ExperimentError(
            f"{folder}: {needed / 1e9:.1f} GB of features, {free / 1e9:.1f} GB free "
            "(choose fewer layers, or another --cache)"
        )
