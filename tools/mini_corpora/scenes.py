"""Random scenes: short mixes of recordings, as varied as AudioSet's clips.

Pure functions from recordings and a NumPy random generator to audio. The equalizer and
the reverberation share one Fourier transform, so that a scene takes about 5 ms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft  # numpy.fft rounds float32 differently

from mini_corpora.bank import SAMPLE_RATE, Clip

#: The recordings `[S]` of each source group.
Groups = dict[str, list[np.ndarray]]

MAX_KINDS = 4
MAX_EVENTS = 3
#: Peak of an event before its random gain; the sum of several rarely reaches 1.
EVENT_PEAK = 0.5
MAX_PEAK = 0.99
REVERB_PROBABILITY = 1 / 3
REVERB_SECONDS = 0.4


def group_recordings(
    clips: Sequence[Clip], kinds: dict[str, tuple[str, ...]]
) -> dict[str, Groups]:
    """Group the recordings of each kind of sound, a set of classes, by source."""
    sources: dict[str, Groups] = {kind: {} for kind in kinds}
    for kind, labels in kinds.items():
        for clip in clips:
            if clip.label in labels:
                sources[kind].setdefault(clip.group, []).append(clip.audio)
    return sources


def shift_pitch(audio: np.ndarray, semitones: float) -> np.ndarray:
    """Raise the pitch by resampling `[S]` to `[S / 2 ** (semitones / 12)]` samples."""
    ratio = 2 ** (-semitones / 12)
    size = fft.next_fast_len(len(audio), real=True)
    new_size = round(size * ratio)
    resampled = fft.irfft(fft.rfft(audio, size), new_size) * (new_size / size)
    return resampled[: max(1, round(len(audio) * ratio))].astype(np.float32)


def vary(audio: np.ndarray, semitones: float, rng: np.random.Generator) -> np.ndarray:
    """Apply a random pitch shift of at most `semitones` and a gain of 0 to -10 dB."""
    audio = shift_pitch(audio, rng.uniform(-semitones, semitones))
    gain = EVENT_PEAK * 10 ** (-rng.uniform(0, 10) / 20)
    return audio * np.float32(gain / np.abs(audio).max())


def draw_event(
    groups: Groups, semitones: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw a source group, then one of its recordings, and vary it.

    Drawing the group first keeps large groups from dominating.
    """
    recordings = groups[sorted(groups)[rng.integers(len(groups))]]
    return vary(recordings[rng.integers(len(recordings))], semitones, rng)


def equalizer(frequencies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw smooth gains `[R]` with a standard deviation of 4 dB at `[R]` frequencies.

    Six gains are interpolated over the logarithm of the frequency (in Hz).
    """
    points = np.linspace(np.log(60), np.log(SAMPLE_RATE / 2), 6)
    decibels = rng.normal(0, 4, len(points))
    curve = np.interp(np.log(np.maximum(frequencies, 1)), points, decibels)
    return (10 ** (curve / 20)).astype(np.float32)


def room_response(rng: np.random.Generator) -> np.ndarray:
    """Draw a room impulse response: the direct sound and exponentially decaying noise.

    The reverberation time (60 dB) is 0.1 to 0.5 s, the tail's level -14 to -3 dB.
    """
    times = np.arange(int(REVERB_SECONDS * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    tail = rng.standard_normal(len(times), dtype=np.float32)
    tail *= 10 ** (-3 * times / rng.uniform(0.1, 0.5))
    tail *= rng.uniform(0.2, 0.7) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return tail


def color(mix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Filter samples `[S]` with a random equalizer and, at times, a random room."""
    size = fft.next_fast_len(len(mix) + int(REVERB_SECONDS * SAMPLE_RATE), real=True)
    response = equalizer(fft.rfftfreq(size, 1 / SAMPLE_RATE), rng)
    if rng.random() < REVERB_PROBABILITY:
        response = response * fft.rfft(room_response(rng), size)
    return fft.irfft(fft.rfft(mix, size) * response, size)[: len(mix)]


def faint_noise(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw white noise `[samples]` at -70 to -50 dB."""
    level = np.float32(10 ** (-rng.uniform(50, 70) / 20))
    return level * rng.standard_normal(samples, dtype=np.float32)


def draw_kinds(sources: dict[str, Groups], rng: np.random.Generator) -> list[str]:
    """Draw 1 to 4 of the kinds of sound, returned in alphabetical order."""
    names = sorted(sources)
    size = rng.integers(1, MAX_KINDS + 1)
    chosen = rng.choice(len(names), size=size, replace=False)
    return [names[i] for i in sorted(chosen)]


def make_scene(
    kinds: Sequence[Groups],
    samples: int,
    semitones: float,
    rng: np.random.Generator,
    max_events: int = MAX_EVENTS,
) -> np.ndarray:
    """Mix events of each kind of sound and faint noise: float32 `[samples]`.

    Of each kind there are 1 to `max_events`, shifted by at most `semitones`; the
    scene's peak is at most 0.99.
    """
    mix = faint_noise(samples, rng)
    for groups in kinds:
        for _ in range(rng.integers(1, max_events + 1)):
            event = draw_event(groups, semitones, rng)
            # At least half of an event is heard; the rest may be cut off at the end.
            start = rng.integers(max(1, samples - len(event) // 2))
            mix[start : start + len(event)] += event[: samples - start]
    mix = color(mix, rng)
    return mix * np.float32(min(1, MAX_PEAK / np.abs(mix).max()))
