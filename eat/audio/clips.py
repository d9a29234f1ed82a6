"""The clips in an audio file: one, or the parts of a chained Ogg file, each decoded.

libsndfile decodes, and where it cannot, or not to the end, PyAV.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain

from eat.audio import ogg, pyav
from eat.audio.checks import kind_of
from eat.audio.decoding import Clip, Decode, NotDecodableError
from eat.audio.source import Source
from eat.errors import AudioError

logger = logging.getLogger(__name__)

# Warnings that reading logs. Silence is left to the preparation: corpora have a lot.
_LOGGED = ("size unknown", "truncated", "too loud")


def parts_of(source: Source) -> Iterator[tuple[Source, bool]]:
    """Yield the parts of a file, and whether libsndfile may know the format.

    Raises
    ------
    AudioError
        If it is an Ogg file that is damaged or not whole.
    """
    if source.head(4) != ogg.MAGIC:
        yield source, True
        return
    links = ogg.split(source)
    if not links:
        raise AudioError(
            f"{source.name}: corrupt, its first Ogg page is damaged (copy it again)"
        )
    for link in links:
        yield source.part(link.start, link.end), link.simple


def decode_part(
    part: tuple[Source, bool], seconds: float | None, decode: Decode
) -> Iterator[Clip]:
    """Decode with a function of `eat.audio.libsndfile`, or else with PyAV.

    If libsndfile finds out at the end that it has missed something, the blocks start
    again, with another `Clip.check`.

    Raises
    ------
    AudioError
        If neither can decode it, or it has no samples.
    """
    source, simple = part
    for clip in _decode(source, seconds, decode if simple else _refuse):
        if clip.frames == 0:
            raise AudioError(f"{source.name}: 0 samples (remove or replace it)")
        yield clip


def _decode(source: Source, seconds: float | None, decode: Decode) -> Iterator[Clip]:
    try:
        yield from decode(source, seconds)
        return
    except NotDecodableError as error:
        reason = error
    if not pyav.available():
        raise AudioError(
            f"{source.name}: not readable by libsndfile, {reason} (pip install "
            "'eat-toolkit[av]', which reads more, or convert it to wav or flac)"
        )
    try:
        yield from pyav.decode(source, seconds)
    except NotDecodableError:
        raise AudioError(
            f"{source.name}: not audio, or corrupt or truncated: {reason} (copy it "
            "again, or convert it to wav or flac)"
        ) from None


def _refuse(source: Source, seconds: float | None) -> Iterator[Clip]:
    raise NotDecodableError("Ogg with a stream that is neither Vorbis nor Opus")


def warnings_of(clips: Sequence[Clip]) -> tuple[str, ...]:
    """Return the warnings about a file and about the samples of all its clips."""
    about_file = chain.from_iterable(clip.warnings for clip in clips)
    check = clips[0].check
    for clip in clips[1:]:
        check.add(clip.check)
    found = check.warnings(clips[0].sample_rate)
    return tuple(dict.fromkeys((*about_file, *found)))


def log_warnings(source: Source, warnings: Sequence[str]) -> None:
    """Log what a user should know of a file that was read, once."""
    for warning in warnings:
        if kind_of(warning) in _LOGGED:
            _log_once(str(source.name), warning)


@lru_cache(maxsize=4096)
def _log_once(name: str, warning: str) -> None:
    logger.warning("%s: %s", name, warning)
