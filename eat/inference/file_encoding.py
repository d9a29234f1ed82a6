"""Features of files that have been read, short ones in batches."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from eat.errors import AudioError
from eat.inference.encoding import Encoding
from eat.inference.reading import AudioFile
from eat.inference.results import Features

logger = logging.getLogger(__name__)


def encode_file(file: AudioFile, encoding: Encoding, at_once: int) -> Features:
    """Return the features of a file, `at_once` windows at a time.

    Raises `AudioError` if it cannot be read.
    """
    recording = file.recording()
    (values,) = encoding.run([recording], at_once, "cpu")
    return encoding.features(values, recording.samples, file.path)


def encode_groups(
    groups: Iterable[Sequence[AudioFile]],
    encoding: Encoding,
    batch_size: int,
    at_once: int,
    skip: bool,
) -> Iterator[Features]:
    """Yield the features of the files of all groups in order.

    A file that cannot be read is logged if it is to be skipped; otherwise its
    `AudioError` is raised.
    """
    for group in groups:
        short = _encode_short(group, encoding, batch_size, at_once)
        for place, file in enumerate(group):
            try:
                yield short.get(place) or encode_file(file, encoding, at_once)
            except AudioError as error:
                if not skip:
                    raise
                logger.warning("%s (skipped)", error)


def _encode_short(
    group: Sequence[AudioFile], encoding: Encoding, batch_size: int, at_once: int
) -> dict[int, Features]:
    """Return the features of the short files of a group, by their place in it."""
    wavs = {n: file.wav for n, file in enumerate(group) if file.wav is not None}
    places = [*wavs]
    if encoding.windowing.pad_to == "clip":
        places.sort(key=lambda place: len(wavs[place]))
    features = {}
    for start in range(0, len(places), batch_size):
        batch = places[start : start + batch_size]
        recordings = [group[place].recording() for place in batch]
        values = encoding.run(recordings, at_once, "cpu")
        for place, value in zip(batch, values, strict=True):
            path, samples = group[place].path, len(wavs[place])
            features[place] = encoding.features(value, samples, path)
    return features
