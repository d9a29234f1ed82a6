"""Make a scene: a short mix of recordings, as random as AudioSet is varied.

Pure functions from recordings and a numpy Generator to audio. Spectra are taken once a
scene, for the equalizer and the room together, which keeps a scene at some 5 ms.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from mini_corpora.bank import SAMPLE_RATE, Bank

#: Recordings to draw from: kind of sound -> source group -> recordings ``[S]``.
Sources = dict[str, dict[str, list[np.ndarray]]]

MAX_KINDS = 4
MAX_EVENTS = 3
#: Peak of an event before its gain, so that several together seldom reach full scale.
EVENT_PEAK = 0.5
MAX_PEAK = 0.99
ROOM_SHARE = 1 / 3
ROOM_SECONDS = 0.4


def sources_of(bank: Bank, kinds: dict[str, tuple[str, ...]]) -> Sources:
    """Arrange the clips of a bank by kind and source group.

    Parameters
    ----------
    bank : Bank
        The clips that may be heard.
    kinds : dict of str to tuple of str
        Each kind's name and the bank's classes that belong to it.
    """
    return {
        kind: {
            group: [clip.audio for clip in clips]
            for group, clips in bank.select(labels=labels).by_group().items()
        }
        for kind, labels in kinds.items()
    }


def shift_pitch(audio: np.ndarray, semitones: float) -> np.ndarray:
    """Raise the pitch and the speed together, as a faster tape does.

    Parameters
    ----------
    audio : np.ndarray
        ``[S]`` samples.
    semitones : float
        12 doubles the pitch and halves the length; negative values lower the pitch.

    Returns
    -------
    np.ndarray
        ``[S / 2 ** (semitones / 12)]`` float32 samples, band-limited.
    """
    ratio = 2 ** (-semitones / 12)
    size = fft.next_fast_len(len(audio), real=True)
    new_size = round(size * ratio)
    resampled = fft.irfft(fft.rfft(audio, size), new_size) * (new_size / size)
    return resampled[: max(1, round(len(audio) * ratio))].astype(np.float32)


def vary(audio: np.ndarray, semitones: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a change of pitch and a gain of 0 to -10 dB for a recording.

    Parameters
    ----------
    audio : np.ndarray
        ``[S]`` samples, not all zero.
    semitones : float
        The largest change of pitch, up or down.
    rng : np.random.Generator
        Where the draws come from.

    Returns
    -------
    np.ndarray
        ``[S']`` samples.
    """
    audio = shift_pitch(audio, rng.uniform(-semitones, semitones))
    gain = EVENT_PEAK * 10 ** (-rng.uniform(0, 10) / 20)
    return audio * np.float32(gain / np.abs(audio).max())


def draw_event(
    groups: dict[str, list[np.ndarray]], semitones: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw a source group, one of its recordings, its pitch and its gain.

    The group is drawn before the recording, so that large groups do not dominate.

    Parameters
    ----------
    groups : dict of str to list of np.ndarray
        Source group -> recordings ``[S]``.
    semitones : float
        The largest change of pitch, up or down.
    rng : np.random.Generator
        Where the draws come from.

    Returns
    -------
    np.ndarray
        ``[S']`` samples.
    """
    recordings = groups[sorted(groups)[rng.integers(len(groups))]]
    return vary(recordings[rng.integers(len(recordings))], semitones, rng)


def equalizer(frequencies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth gain: six points with a deviation of 4 dB, joined in log-frequency.

    Parameters
    ----------
    frequencies : np.ndarray
        ``[R]`` in Hz, ascending from 0 to half the sampling rate.
    rng : np.random.Generator
        Where the draws come from.

    Returns
    -------
    np.ndarray
        ``[R]`` factors.
    """
    points = np.linspace(np.log(60), np.log(SAMPLE_RATE / 2), 6)
    decibels = rng.normal(0, 4, len(points))
    curve = np.interp(np.log(np.maximum(frequencies, 1)), points, decibels)
    return (10 ** (curve / 20)).astype(np.float32)


def room_response(rng: np.random.Generator) -> np.ndarray:
    """Draw a short room: the direct sound and an exponentially decaying noise.

    Parameters
    ----------
    rng : np.random.Generator
        Where the draws come from: decay by 60 dB in 0.1 to 0.5 s, tail at -14 to -3 dB.

    Returns
    -------
    np.ndarray
        ``[0.4 s]`` impulse response.
    """
    times = np.arange(int(ROOM_SECONDS * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    tail = rng.standard_normal(len(times), dtype=np.float32)
    tail *= 10 ** (-3 * times / rng.uniform(0.1, 0.5))
    tail *= rng.uniform(0.2, 0.7) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return tail


def color(mix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pass a mix ``[S]`` through a random equalizer and, one time in three, a room."""
    size = fft.next_fast_len(len(mix) + int(ROOM_SECONDS * SAMPLE_RATE), real=True)
    response = equalizer(fft.rfftfreq(size, 1 / SAMPLE_RATE), rng)
    if rng.random() < ROOM_SHARE:
        response = response * fft.rfft(room_response(rng), size)
    return fft.irfft(fft.rfft(mix, size) * response, size)[: len(mix)]


def make_scene(
    sources: Sources, samples: int, semitones: float, rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """Mix 1 to 4 kinds of sound, 1 to 3 events of each, with a faint noise.

    Parameters
    ----------
    sources : dict
        Kind -> source group -> recordings; at least four kinds.
    samples : int
        S, the length of the mix.
    semitones : float
        The largest change of pitch of an event.
    rng : np.random.Generator
        Where every draw comes from: the same generator makes the same scene.

    Returns
    -------
    mix : np.ndarray
        ``[S]`` float32, peak at most 0.99.
    kinds : list of str
        What can be heard, in alphabetical order.
    """
    names = sorted(sources)
    chosen = rng.choice(len(names), size=rng.integers(1, MAX_KINDS + 1), replace=False)
    kinds = [names[i] for i in sorted(chosen)]
    noise_level = np.float32(10 ** (-rng.uniform(50, 70) / 20))
    mix = noise_level * rng.standard_normal(samples, dtype=np.float32)
    for kind in kinds:
        for _ in range(rng.integers(1, MAX_EVENTS + 1)):
            event = draw_event(sources[kind], semitones, rng)
            # An event may run over the end, but half of it is always heard.
            start = rng.integers(max(1, samples - len(event) // 2))
            mix[start : start + len(event)] += event[: samples - start]
    mix = color(mix, rng)
    return mix * np.float32(min(1, MAX_PEAK / np.abs(mix).max())), kinds
