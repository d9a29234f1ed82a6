"""From a manifest to padded batches: the dataset and its collate function."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from eat.data.compact_manifest import CompactClips, CompactManifest
from eat.data.manifest import LabelSet
from eat.data.row_selection import EveryNth
from eat.data.shards import read_clip
from eat.data.shared_memory import Shared, empty, from_shared, to_shared
from eat.errors import AudioError, ClipError, ManifestError

MAX_ATTEMPTS = 10  # clips to try for one
MAX_WORKERS = 128


@dataclass(frozen=True)
class Batch:
    """A batch of clips of different lengths.

    `failures` has id and error of each unreadable clip for which another was
    substituted.
    """

    ids: list[str]
    wav: Tensor  # `[B, S]` float32, padded with zeros at the end
    lengths: Tensor  # `[B]` int64, in samples (unlike SpeechBrain's relative lengths)
    target: Tensor | None = None  # `[B, C]` float32, multi-hot
    failures: list[tuple[str, str]] = field(default_factory=list)

    @property
    def labels(self) -> Tensor:
        """The multi-hot labels `[B, C]` of labeled clips."""
        if self.target is None:
            raise ValueError(f"the clips {self.ids} have no labels (give a label set)")
        return self.target

    def to(self, device: str | torch.device, non_blocking: bool = False) -> Batch:
        """Return the batch with its tensors on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory; a loader with `pin_memory` calls this."""
        return self._map(Tensor.pin_memory)

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple]:
        """Leave a data worker: waveforms in shared memory if it has room for them.

        The small tensors are sent by value.
        """
        parts: list[Any] = [self.wav, self.lengths, self.target]
        if get_worker_info() is not None:
            wav, *others = parts
            arrays = (None if part is None else part.numpy() for part in others)
            parts = [to_shared(wav), *arrays]
        return _received, (self.ids, self.failures, *parts)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with a function applied to its tensors."""
        target = None if self.target is None else function(self.target)
        wav, lengths = function(self.wav), function(self.lengths)
        return replace(self, wav=wav, lengths=lengths, target=target)


def _received(
    ids: list[str],
    failures: list[tuple[str, str]],
    wav: Tensor | np.ndarray | Shared,
    lengths: Tensor | np.ndarray,
    target: Tensor | np.ndarray | None,
) -> Batch:
    """Return the batch that `Batch.__reduce__` took apart."""
    target = None if target is None else torch.as_tensor(target)
    return Batch(ids, from_shared(wav), torch.as_tensor(lengths), target, failures)


def collate(items: list[dict]) -> Batch:
    """Pad the items of a `ClipDataset` to the longest one and return the batch."""
    wavs = [item["sig"] for item in items]
    lengths = [len(wav) for wav in wavs]
    labeled = "target" in items[0]
    return Batch(
        ids=[item["id"] for item in items],
        lengths=torch.tensor(lengths),
        target=torch.stack([item["target"] for item in items]) if labeled else None,
        failures=[failure for item in items for failure in item.get("failures", ())],
        wav=_pad(wavs, lengths),  # at last, see `empty`
    )


def _pad(wavs: list[Tensor], lengths: list[int]) -> Tensor:
    """Return the waveforms in one tensor, each element of which is written once."""
    padded = empty(len(wavs), max(lengths))
    for row, wav, length in zip(padded.numpy(), wavs, lengths, strict=True):
        row[:length] = wav.numpy()
        row[length:] = 0
    return padded


class ClipDataset(Dataset):
    """The clips of a manifest; unreadable ones may be substituted by others.

    Items have ``id``, ``sig`` `[S]` float32, ``failures`` and, with labels, ``target``
    `[C]` float32. Parameters are as in `audio_dataset`; `read` maps a path to a
    waveform `[S]`, and `chosen` are rows of the manifest, all by default.
    """

    def __init__(
        self,
        manifest: CompactClips,
        data_root: str,
        labels: LabelSet | None,
        read: Callable[[str], Tensor],
        replace: bool = False,
        chosen: EveryNth | np.ndarray | None = None,
    ) -> None:
        self.manifest = manifest
        self.data_root = data_root
        self.label_set = labels
        self.read = read
        self.replace = replace
        self.chosen = EveryNth(len(manifest)) if chosen is None else chosen
        # The clip that each worker is reading, for the error when one dies or hangs.
        self._reading = torch.full((MAX_WORKERS + 1,), -1)
        with suppress(RuntimeError):  # no room: then that error names no clips
            self._reading.share_memory_()

    def __len__(self) -> int:
        return len(self.chosen)

    def id(self, index: int) -> str:
        """Return the id of a clip."""
        return self.manifest.ids[self.chosen[index]]

    def path(self, index: int) -> str:
        """Return the path of a clip, or its address in a shard."""
        wav = self.manifest.wavs[self.chosen[index]]
        return wav.replace("$data_root", self.data_root, 1)

    def labels(self, index: int) -> tuple[str, ...]:
        """Return the label ids of a clip."""
        return tuple(filter(None, self._field(index).split(";")))

    def label_codes(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels of these clips as numbers, and how many each clip has.

        The clips must be those of a manifest.
        """
        assert isinstance(self.manifest, CompactManifest)
        return self.manifest.labels.codes(self.chosen[np.arange(start, stop)])

    def subset(self, indices: EveryNth | np.ndarray) -> ClipDataset:
        """Return the dataset of some of these clips."""
        settings = (self.data_root, self.label_set, self.read, self.replace)
        if not isinstance(self.chosen, EveryNth) or len(self) < len(self.manifest):
            indices = self.chosen[indices[np.arange(len(indices))]]
        return ClipDataset(self.manifest, *settings, indices)

    def without_substitutes(self) -> ClipDataset:
        """Return the dataset of these clips in which unreadable ones raise an error."""
        settings = (self.data_root, self.label_set, self.read)
        return ClipDataset(self.manifest, *settings, chosen=self.chosen)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the ids and labels of the clips, in order."""
        rows = self.chosen
        chosen = repr(rows).encode() if isinstance(rows, EveryNth) else rows.tobytes()
        columns = self.manifest.ids.sha256 + self.manifest.labels.sha256
        return hashlib.sha256(chosen + columns.encode()).hexdigest()

    def clips_being_read(self) -> list[str]:
        """Return the ids of the clips that data workers are reading at the moment."""
        return [self.id(index) for index in self._reading[1:].tolist() if index >= 0]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return an item.

        Raises `AudioError` if it cannot be read and is not substituted, `ManifestError`
        if it has a label that is not in the list, `ClipError` on any other error.
        """
        worker = get_worker_info()
        slot = 0 if worker is None else 1 + worker.id % MAX_WORKERS
        reading = self._reading.numpy()
        failures: list[tuple[str, str]] = []
        tried: list[int] = []
        while True:
            reading[slot] = index
            tried.append(index)
            try:
                item = self._load(index)
                reading[slot] = -1
                return {**item, "failures": failures}
            except AudioError as error:
                failures.append((self.id(index), str(error)))
                if not self.replace:
                    raise
                if len(tried) == min(MAX_ATTEMPTS, len(self)):
                    raise AudioError(f"{error} ({self._none_left(tried)})") from None
            except ManifestError:
                raise
            except Exception as error:
                name = type(error).__name__
                raise ClipError(f"clip {self.id(index)}: {name}, {error}") from error
            index = _substitute(tried, len(self))

    def _load(self, index: int) -> dict[str, Any]:
        path = self.path(index)
        item = {"id": self.id(index), "sig": self.read(path)}
        if self.label_set is not None:
            item["target"] = self.label_set.encode(self._field(index), path)
        return item

    def _none_left(self, tried: list[int]) -> str:
        """Return how many clips were tried in vain, for an error."""
        if len(tried) == len(self):
            return f"all {len(self)} clips are unreadable"
        return f"{len(tried)} of {len(self)} clips tried, none is readable"

    def _field(self, index: int) -> str:
        return self.manifest.labels[self.chosen[index]]


def _substitute(tried: list[int], clips: int) -> int:
    """Return the index of the next clip to try, a pure function of the first one.

    Fewer than all clips have been tried.
    """
    digest = hashlib.sha256(f"{tried[-1]}/{len(tried)}".encode()).digest()
    index = int.from_bytes(digest[:8], "big") % clips
    while index in tried:
        index = (index + 1) % clips
    return index


def audio_dataset(
    manifest: str | os.PathLike[str],
    data_root: str | os.PathLike[str],
    labels: LabelSet | None,
    max_seconds: float,
    sample_rate: int = 16000,
    replace: bool = False,
) -> ClipDataset:
    """Return the dataset of a manifest.

    Parameters
    ----------
    manifest
        CSV file written by `eat.data.manifest.write_manifest`.
    data_root
        Folder that ``$data_root`` in the manifest refers to.
    labels
        Classes of the targets; None for clips without targets (pre-training).
    max_seconds
        Clips are truncated to this duration.
    sample_rate
        Sample rate of the waveforms, in Hz.
    replace
        For training: substitute another clip for an unreadable one, always the same,
        and record that in the batch. Otherwise `AudioError` is raised.

    Raises
    ------
    ManifestError
        If the manifest is missing, empty or malformed.
    """
    # A partial of a module-level function can be pickled for a data worker.
    read = partial(read_clip, sample_rate=sample_rate, max_seconds=max_seconds)
    rows = CompactManifest(manifest)
    return ClipDataset(rows, os.fspath(data_root), labels, read, replace)


def hold_out(data: ClipDataset, share: float) -> tuple[ClipDataset, ClipDataset]:
    """Split a dataset into (rest, held out), evenly spaced in the manifest.

    Every n-th clip is held out, where n is 1 / `share`, rounded. Raises `ManifestError`
    if the share is not above 0 and at most 0.5, or there is only one clip.
    """
    if not 0 < share <= 0.5:
        raise ManifestError(f"held_out {share}: must be above 0 and at most 0.5")
    if len(data) < 2:
        raise ManifestError(
            f"{data.id(0)}: the only clip cannot be held out (add recordings)"
        )
    held = EveryNth(len(data), round(1 / share))
    return data.subset(replace(held, others=True)), data.subset(held)
