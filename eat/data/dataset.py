"""From a manifest to padded batches: the SpeechBrain dataset and its collate."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, replace
from functools import partial

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from eat.audio.io import read_audio
from eat.data.manifest import COLUMNS, LabelSet, ManifestError


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
    """

    ids: list[str]
    wav: Tensor
    lengths: Tensor
    target: Tensor | None = None

    def to(self, device: str | torch.device, non_blocking: bool = False) -> Batch:
        """Return the batch with its tensors on a device.

        Parameters
        ----------
        device : str or torch.device
            Where to.
        non_blocking : bool
            Do not wait for copies from pinned memory.

        Returns
        -------
        Batch
            The moved batch.
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
        Each with ``id``, ``sig`` `[S]` and, where labelled, ``target`` `[C]`.

    Returns
    -------
    Batch
        As long as its longest clip.
    """
    wavs = [item["sig"] for item in items]
    labelled = "target" in items[0]
    return Batch(
        ids=[item["id"] for item in items],
        wav=pad_sequence(wavs, batch_first=True),
        lengths=torch.tensor([len(wav) for wav in wavs]),
        target=torch.stack([item["target"] for item in items]) if labelled else None,
    )


def _check_manifest(manifest: str | os.PathLike[str]) -> None:
    """Raise `ManifestError` unless the file has our columns and one clip at least."""
    try:
        with open(manifest, encoding="utf-8", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            header, first = next(reader, None), next(reader, None)
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"{manifest}: cannot be read ({error}; run the corpus's prepare script)"
        ) from None
    if first is None or not set(COLUMNS) <= set(header):
        raise ManifestError(
            f"{manifest}: no clips under the columns {','.join(COLUMNS)} "
            "(run the corpus's prepare script again)"
        )


def audio_dataset(
    manifest: str | os.PathLike[str],
    data_root: str | os.PathLike[str],
    labels: LabelSet | None,
    max_seconds: float,
    sample_rate: int = 16000,
) -> DynamicItemDataset:
    """Make the SpeechBrain dataset of a manifest.

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

    Returns
    -------
    DynamicItemDataset
        Items with ``id``, ``sig`` `[S]` float32 and, with labels, ``target`` `[C]`
        float32. An unreadable file raises `eat.audio.io.AudioError` when its item is
        fetched, a label outside the list `ManifestError`.

    Raises
    ------
    ManifestError
        If the manifest is missing, empty or malformed.
    """
    _check_manifest(manifest)
    try:
        dataset = DynamicItemDataset.from_csv(
            os.fspath(manifest), replacements={"data_root": os.fspath(data_root)}
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ManifestError(
            f"{manifest}: {error} (run the corpus's prepare script again)"
        ) from None
    # Partials of module functions, which a data worker can unpickle.
    read = partial(read_audio, sample_rate=sample_rate, max_seconds=max_seconds)
    dataset.add_dynamic_item(read, takes="wav", provides="sig")
    if labels is None:
        dataset.set_output_keys(["id", "sig"])
    else:
        dataset.add_dynamic_item(
            labels.encode, takes=["labels", "wav"], provides="target"
        )
        dataset.set_output_keys(["id", "sig", "target"])
    return dataset


def hold_out(
    data: DynamicItemDataset, share: float
) -> tuple[DynamicItemDataset, DynamicItemDataset]:
    """Split into (rest, held out): clips at even distances in the manifest.

    Parameters
    ----------
    data : DynamicItemDataset
        All clips.
    share : float
        How much to hold out, above 0 and up to 0.5.

    Returns
    -------
    tuple of DynamicItemDataset
        The larger and the smaller part.

    Raises
    ------
    ManifestError
        If the share is no such number, or there is one clip only.
    """
    if not 0 < share <= 0.5:
        raise ManifestError(f"held_out {share}: must lie above 0, up to 0.5")
    if len(data) < 2:
        raise ManifestError(
            f"only 1 clip, {data.data_ids[0]}: none can be held out (add recordings)"
        )
    held = set(data.data_ids[:: round(1 / share)])
    return (
        data.filtered_sorted(key_test={"id": lambda i: i not in held}),
        data.filtered_sorted(key_test={"id": lambda i: i in held}),
    )
