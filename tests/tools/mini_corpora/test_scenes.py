"""Random scenes: pitch, gain, equalizer, room and the choice of sounds."""

import numpy as np
import pytest

from mini_corpora.bank import SAMPLE_RATE, Clip
from mini_corpora.scenes import (
    color,
    draw_event,
    draw_kinds,
    equalizer,
    group_recordings,
    make_scene,
    room_response,
    shift_pitch,
    vary,
)


def tone(frequency, samples=SAMPLE_RATE // 2):
    times = np.arange(samples) / SAMPLE_RATE
    return np.sin(2 * np.pi * frequency * times).astype(np.float32)


def loudest_frequency(audio):
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 4 * SAMPLE_RATE))
    return power.argmax() / 4


@pytest.fixture
def sources():
    return {
        name: {"a": [tone(frequency)], "b": [tone(2 * frequency)]}
        for name, frequency in zip("vwxyz", (200, 300, 400, 500, 600), strict=True)
    }


@pytest.mark.parametrize("semitones", [-5, -1.5, 0, 2, 5])
def test_shift_pitch_moves_frequency_and_length(semitones):
    ratio = 2 ** (semitones / 12)
    shifted = shift_pitch(tone(1000), semitones)
    assert len(shifted) == round(SAMPLE_RATE // 2 / ratio)
    assert loudest_frequency(shifted) == pytest.approx(1000 * ratio, rel=2e-3)
    assert shifted.dtype == np.float32
    middle = shifted[len(shifted) // 4 : -len(shifted) // 4]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5**0.5, rel=0.02)


def test_vary_draws_gain_and_pitch_within_limits():
    rng = np.random.default_rng(0)
    events = [vary(tone(1000), 2, rng) for _ in range(200)]
    decibels = [20 * np.log10(np.abs(event).max() / 0.5) for event in events]
    assert -10.01 <= min(decibels) < -9 and -1 < max(decibels) <= 0.01
    lengths = [len(event) / (SAMPLE_RATE // 2) for event in events]
    assert 2 ** (-2 / 12) * 0.999 <= min(lengths) < 0.92
    assert 1.08 < max(lengths) <= 2 ** (2 / 12) * 1.001


def test_groups_are_drawn_before_recordings():
    groups = {"large": [tone(500, 1000)] * 99, "small": [tone(500, 4000)]}
    rng = np.random.default_rng(0)
    long = sum(len(draw_event(groups, 0, rng)) == 4000 for _ in range(400))
    assert 160 < long < 240


def test_equalizer_is_smooth_and_moderate():
    frequencies = np.linspace(0, SAMPLE_RATE / 2, 4097)
    rng = np.random.default_rng(0)
    decibels = np.stack(
        [20 * np.log10(equalizer(frequencies, rng)) for _ in range(300)]
    )
    assert 2.5 < decibels.std() < 4.5
    assert np.abs(np.diff(decibels[:, 200:])).max() < 0.5


def test_room_response_starts_with_the_direct_sound_and_decays():
    rng = np.random.default_rng(0)
    for _ in range(20):
        room = room_response(rng)
        assert room[0] == 1
        assert 0.15 < np.sqrt(np.sum(room[1:] ** 2)) < 0.75
        assert np.sum(room[1:3200] ** 2) > 10 * np.sum(room[3200:] ** 2)


def test_color_keeps_the_length_and_adds_a_room_one_time_in_three():
    click = np.zeros(8000, dtype=np.float32)
    click[1000] = 1
    rng = np.random.default_rng(0)
    tails = [np.sum(color(click, rng)[2000:3000] ** 2) for _ in range(300)]
    assert 70 < sum(tail > 1e-4 for tail in tails) < 130
    assert color(click, rng).shape == click.shape


def test_scene_is_reproducible_and_bounded(sources):
    kinds = list(sources.values())
    first, second = (
        make_scene(kinds, 20000, 5, np.random.default_rng(7)) for _ in range(2)
    )
    assert np.array_equal(first, second)
    for seed in range(50):
        mix = make_scene(kinds[: 1 + seed % 4], 20000, 5, np.random.default_rng(seed))
        assert mix.shape == (20000,) and mix.dtype == np.float32
        assert 0 < np.abs(mix).max() <= 0.991


def test_kinds_are_drawn_evenly(sources):
    rng = np.random.default_rng(0)
    drawn = [draw_kinds(sources, rng) for _ in range(400)]
    assert {len(kinds) for kinds in drawn} == {1, 2, 3, 4}
    assert all(kinds == sorted(set(kinds)) for kinds in drawn)
    assert np.mean([len(kinds) for kinds in drawn]) == pytest.approx(2.5, abs=0.15)
    counts = [sum(name in kinds for kinds in drawn) for name in sources]
    assert min(counts) > 160 and max(counts) < 240


def test_only_the_given_kinds_are_in_a_scene():
    groups = {"a": [tone(200)]}
    mix = make_scene([groups, groups], SAMPLE_RATE, 0, np.random.default_rng(1))
    assert loudest_frequency(mix) == pytest.approx(200, abs=3)


def test_recordings_are_grouped_by_kind_and_source():
    rest = dict.fromkeys("split fold package original author license".split(), "")
    clips = [
        Clip(audio=tone(100), label=label, group=group, **rest)
        for label, group in (("A", "g"), ("B", "g"), ("B", "h"), ("C", "g"))
    ]
    grouped = group_recordings(clips, {"one": ("A", "B"), "two": ("C",)})
    assert {k: {g: len(r) for g, r in v.items()} for k, v in grouped.items()} == {
        "one": {"g": 2, "h": 1},
        "two": {"g": 1},
    }
