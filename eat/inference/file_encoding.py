"""Features of files, encoded in batches, in order."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

from eat.errors import AudioError
from eat.inference.encoding import Encoding
from eat.inference.reading import AudioFile, batches
from eat.inference.results import Features

logger = logging.getLogger(__name__)
SORTED_BATCHES = 8  # among which clips of similar length are batched


def encode_in_order(
    files: Generator[AudioFile], encoding: Encoding, skip: bool
) -> Iterator[Features]:
    """Yield the features of all files in order.

    A file that cannot be read is logged if it is to be skipped; otherwise its
    `AudioError` is raised.
    """
    size = encoding.at_once * (SORTED_BATCHES if encoding.sorts else 1)
    with closing(files):
        for group in batches(files, size):
            short = _encode_short(group, encoding)
            for place, file in enumerate(group):
                try:
                    yield short.get(place) or encoding.encode([file])[0]
                except AudioError as error:
                    if not skip:
                        raise
                    logger.warning("%s (skipped)", error)


def _encode_short(
    group: Sequence[AudioFile], encoding: Encoding
) -> dict[int, Features]:
    """Return the features of the short files of a group, by their place in it."""
    places = [place for place, file in enumerate(group) if file.is_short]
    features: dict[int, Features] = {}
    length = (lambda place: len(group[place].wav)) if encoding.sorts else None
    for batch in batches(places, encoding.at_once, length):
        found = encoding.encode([group[place] for place in batch])
        features |= zip(batch, found, strict=True)
    return features
