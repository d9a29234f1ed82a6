"""From a manifest to padded batches: the dataset and its collate."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, get_worker_info

from eat.data.compact_manifest import CompactManifest
from eat.data.manifest import LabelSet
from eat.data.shards import read_clip
from eat.errors import AudioError, ClipError, ManifestError

ATTEMPTS = 10  # clips that may fail one after the other
MAX_WORKERS = 128


@dataclass(frozen=True)
class Batch:
    """A batch of clips of different lengths.

    Attributes
    ----------
    ids : list of str
        Names of the clips.
    wav : Tensor
        `[B, S]` float32, zero padded at the end.
    lengths : Tensor
        `[B]` int64, samples of each clip (exact, unlike SpeechBrain's shares).
    target : Tensor, optional
        `[B, C]` float32 multi-hot labels.
    failures : list of (str, str)
        Clips that could not be read and for which others stand in, and why.
    """

    ids: list[str]
    wav: Tensor
    lengths: Tensor
    target: Tensor | None = None
    failures: list[tuple[str, str]] = field(default_factory=list)

    def to(self, device: str | torch.device, non_blocking: bool = False) -> Batch:
        """Return the batch with its tensors on a device.

        With `non_blocking`, copies from pinned memory are not waited for.
        """
        return replace(
            self,
            wav=self.wav.to(device, non_blocking=non_blocking),
            lengths=self.lengths.to(device, non_blocking=non_blocking),
            target=None
            if self.target is None
            else self.target.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory; called by a loader with pin_memory."""
        return replace(
            self,
            wav=self.wav.pin_memory(),
            lengths=self.lengths.pin_memory(),
            target=None if self.target is None else self.target.pin_memory(),
        )


def collate(items: list[dict]) -> Batch:
    """Pad the items of `audio_dataset` to one batch.

    Parameters
    ----------
    items : list of dict
        Each with ``id``, ``sig`` `[S]` and, where labeled, ``target`` `[C]`.

    Returns
    -------
    Batch
        As long as its longest clip.
    """
    wavs = [item["sig"] for item in items]
    labeled = "target" in items[0]
    return Batch(
        ids=[item["id"] for item in items],
        wav=pad_sequence(wavs, batch_first=True),
        lengths=torch.tensor([len(wav) for wav in wavs]),
        target=torch.stack([item["target"] for item in items]) if labeled else None,
        failures=[failure for item in items for failure in item.get("failures", ())],
    )


class ClipDataset(Dataset):
    """The clips of a manifest: read, and replaced where they cannot be.

    Parameters
    ----------
    manifest : CompactManifest
        All clips.
    data_root : str
        Folder that stands for ``$data_root`` in their paths.
    labels : LabelSet, optional
        Classes of the targets; None for items without targets.
    read : callable
        From a path to a waveform `[S]`.
    replace : bool
        Let another clip stand in for one that cannot be read, always the same one.
    chosen : numpy.ndarray, optional
        Rows of the manifest, in order; all by default.
    """

    def __init__(
        self,
        manifest: CompactManifest,
        data_root: str,
        labels: LabelSet | None,
        read: Callable[[str], Tensor],
        replace: bool = False,
        chosen: np.ndarray | None = None,
    ) -> None:
        self.manifest = manifest
        self.data_root = data_root
        self.label_set = labels
        self.read = read
        self.replace = replace
        self.chosen = np.arange(len(manifest)) if chosen is None else chosen
        # What each worker is reading, for the message when one dies or hangs.
        self._reading = torch.full((MAX_WORKERS + 1,), -1).share_memory_()

    def __len__(self) -> int:
        return len(self.chosen)

    def id(self, index: int) -> str:
        """Return the name of a clip."""
        return self.manifest.ids[self.chosen[index]]

    def labels(self, index: int) -> tuple[str, ...]:
        """Return the label ids of a clip."""
        return tuple(filter(None, self._field(index).split(";")))

    def subset(self, indices: np.ndarray) -> ClipDataset:
        """Return the dataset of some of these clips."""
        settings = (self.data_root, self.label_set, self.read, self.replace)
        return ClipDataset(self.manifest, *settings, self.chosen[indices])

    def without_substitutes(self) -> ClipDataset:
        """Return the dataset of these clips, none of which another may stand in for."""
        settings = (self.data_root, self.label_set, self.read)
        return ClipDataset(self.manifest, *settings, chosen=self.chosen)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the names and labels of the clips, in order."""
        digest = hashlib.sha256(self.chosen.astype(np.int64).tobytes())
        for strings in (self.manifest.ids, self.manifest.labels):
            digest.update(strings.ends.tobytes())
            digest.update(strings.block)
        return digest.hexdigest()

    def clips_being_read(self) -> list[str]:
        """Return the names of the clips that data workers are reading right now."""
        return [self.id(index) for index in self._reading[1:].tolist() if index >= 0]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``id``, ``sig`` `[S]`, ``target`` `[C]` and ``failures`` of a clip.

        Raises
        ------
        AudioError
            If it cannot be read and nothing may or can stand in for it.
        ManifestError
            If it has a label that is not in the list.
        ClipError
            If anything else goes wrong.
        """
        worker = get_worker_info()
        slot = 0 if worker is None else 1 + worker.id % MAX_WORKERS
        failures: list[tuple[str, str]] = []
        while True:
            self._reading[slot] = index
            try:
                item = self._load(index)
                self._reading[slot] = -1
                return {**item, "failures": failures}
            except AudioError as error:
                failures.append((self.id(index), str(error)))
                if not self.replace:
                    raise
                if len(failures) == ATTEMPTS:
                    raise AudioError(
                        f"{error} ({ATTEMPTS} clips in a row cannot be read)"
                    ) from None
            except ManifestError:
                raise
            except Exception as error:
                name = type(error).__name__
                raise ClipError(f"clip {self.id(index)}: {name}, {error}") from error
            index = _substitute(index, len(failures), len(self))

    def _load(self, index: int) -> dict[str, Any]:
        wav = self.manifest.wavs[self.chosen[index]]
        path = wav.replace("$data_root", self.data_root, 1)
        item = {"id": self.id(index), "sig": self.read(path)}
        if self.label_set is not None:
            item["target"] = self.label_set.encode(self._field(index), path)
        return item

    def _field(self, index: int) -> str:
        return self.manifest.labels[self.chosen[index]]


def _substitute(index: int, attempt: int, clips: int) -> int:
    """Return which clip stands in for one; a function of nothing but the numbers."""
    digest = hashlib.sha256(f"{index}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % clips


def audio_dataset(
    manifest: str | os.PathLike[str],
    data_root: str | os.PathLike[str],
    labels: LabelSet | None,
    max_seconds: float,
    sample_rate: int = 16000,
    replace: bool = False,
) -> ClipDataset:
    """Make the dataset of a manifest.

    Parameters
    ----------
    manifest : str or PathLike
        CSV file as `eat.data.manifest.write_manifest` writes it.
    data_root : str or PathLike
        Folder that stands for ``$data_root`` in the manifest.
    labels : LabelSet, optional
        Classes of the targets; None for clips without targets (pre-training).
    max_seconds : float
        Clips are cut to their first seconds.
    sample_rate : int
        Rate of the waveforms, in Hz.
    replace : bool
        For training: a clip that cannot be read does not stop it, another one stands
        in, and the batch says so. Otherwise `eat.audio.io.AudioError` is raised.

    Returns
    -------
    ClipDataset
        Items with ``id``, ``sig`` `[S]` float32 and, with labels, ``target`` `[C]`
        float32.

    Raises
    ------
    ManifestError
        If the manifest is missing, empty or malformed.
    """
    # A partial of a module function, which a data worker can unpickle.
    read = partial(read_clip, sample_rate=sample_rate, max_seconds=max_seconds)
    rows = CompactManifest(manifest)
    return ClipDataset(rows, os.fspath(data_root), labels, read, replace)


def hold_out(data: ClipDataset, share: float) -> tuple[ClipDataset, ClipDataset]:
    """Split into (rest, held out): clips at even distances in the manifest.

    Parameters
    ----------
    data : ClipDataset
        All clips.
    share : float
        How much to hold out, above 0 and up to 0.5; taken is every n-th clip, where n
        is the whole number nearest to 1 / share.

    Returns
    -------
    tuple of ClipDataset
        The larger and the smaller part.

    Raises
    ------
    ManifestError
        If the share is no such number, or there is only one clip.
    """
    if not 0 < share <= 0.5:
        raise ManifestError(f"held_out {share}: must lie above 0, up to 0.5")
    if len(data) < 2:
        raise ManifestError(
            f"only 1 clip, {data.id(0)}: none can be held out (add recordings)"
        )
    held = np.zeros(len(data), dtype=bool)
    held[:: round(1 / share)] = True
    return data.subset(np.flatnonzero(~held)), data.subset(np.flatnonzero(held))
