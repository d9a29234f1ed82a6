"""Windows lie on one grid of frames, cover a recording, and are joined exactly."""

import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eat.inference.windows import (
    FRAME,
    TAIL,
    Stitcher,
    Windowing,
    count_frames,
    cut_windows,
    frame_times,
)


def windows_of(samples, size, stride, hop=FRAME, tail=0, block=50_000):
    """Cut the recording 0, 1, 2, ... so that samples tell where they are from."""
    recording = torch.arange(samples, dtype=torch.float64)
    windowing = Windowing(size, stride, hop)
    return [*cut_windows(recording.split(block), windowing, tail)]


@settings(max_examples=30)
@given(
    samples=st.integers(1, 90_000),
    size=st.integers(1, 10),
    overlap=st.floats(0, 0.99),
    block=st.integers(100, 100_000),
)
def test_windows_cover_the_recording(samples, size, overlap, block):
    stride = Windowing.check(16 * size, overlap=overlap).stride
    windows = windows_of(samples, size, stride, block=block)
    total = math.ceil(samples / FRAME)
    starts = [window.start for window in windows]
    last = max(0, total - size)
    assert starts == [*range(0, last, stride), last]
    for window in windows:
        begin = window.start * FRAME
        end = min(samples, begin + size * FRAME + TAIL)
        assert window.wav.tolist() == [*range(begin, end)]
        assert window.frames(size) == min(size, total)
    assert windows[-1].wav[-1] == samples - 1


@pytest.mark.parametrize(
    ("extra", "for_clips", "for_frames"),
    [(0, 1, 1), (1, 1, 2), (TAIL, 1, 2), (TAIL + 1, 2, 2)],
)
def test_what_fits_into_the_model_is_one_window_of_a_clip(extra, for_clips, for_frames):
    samples = 4 * FRAME + extra
    assert len(windows_of(samples, 4, 4, tail=TAIL)) == for_clips
    assert len(windows_of(samples, 4, 4)) == for_frames


@pytest.mark.parametrize("samples", [1, 700, 2561, 33_000])
def test_passes_are_those_of_the_shifted_recording(samples):
    hop = 640
    found = windows_of(samples, 3, 2, hop, block=1000)
    for shift in range(FRAME // hop):
        own = [(w.start, w.wav.tolist()) for w in found if w.shift == shift]
        rest = max(0, samples - shift * hop)
        expected = [
            (w.start, (w.wav + shift * hop).tolist())
            for w in windows_of(rest, 3, 2)
            if rest
        ]
        assert own == expected


@pytest.mark.parametrize("hop", [FRAME, FRAME // 4])
def test_few_blocks_of_a_long_recording_are_kept(hop):
    kept = weakref.WeakSet()

    def blocks():
        for _ in range(100):
            kept.add(block := torch.zeros(20_000))
            yield block

    for _ in cut_windows(blocks(), Windowing(4, 4, hop)):
        # Each pass has the block it read last, and a part of the one before.
        assert len(kept) <= 2 * FRAME // hop + 1


def test_times_do_not_drift():
    hours = 10 * 3600 * 16_000 + 7
    for hop in (FRAME, 160):
        times = frame_times(hours, hop)
        assert len(times) == count_frames(hours, hop) == math.ceil(hours / hop)
        assert times[-1, 0] == (len(times) - 1) * hop / 16_000 < hours / 16_000
        assert times[-1, 1] == hours / 16_000 and times[5, 1] == (5 * hop + 2560) / 16e3


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        *[("window", value) for value in (0, -1, 0.1, 10.3, math.nan)],
        *[("overlap", value) for value in (-0.1, 1, 1.5, math.nan)],
        *[("hop_ms", value) for value in (0, 5, 15, 30, 320, -40, 40.5)],
        ("pad_to", "batch"),
    ],
)
def test_wrong_options_are_named(option, wrong):
    with pytest.raises(ValueError, match=f"^{option} "):
        Windowing.check(1024, **{option: wrong})


def test_windows_are_whole_frames():
    assert Windowing.check(1024) == Windowing(64, 64)
    assert Windowing.check(1024, 10.0, 0.5).size == 62  # 9.92 s
    assert Windowing.check(1024, 10.255).size == 64
    assert Windowing.check(1024, 0.16, 0.9).stride == 1
    assert Windowing.check(1024, hop_ms=40).hop == 640


def test_frames_of_several_windows_are_averaged():
    stitcher = Stitcher()
    frames = {start: torch.randn(2, 5, 3) for start in (0, 2, 4, 5)}
    for start, values in frames.items():
        stitcher.add(start, values)
    joined = stitcher.result()
    for frame in range(10):
        seen = [v[:, frame - s] for s, v in frames.items() if s <= frame < s + 5]
        expected = torch.stack(seen).mean(dim=0)
        torch.testing.assert_close(joined[:, frame], expected)
    assert joined.shape == (2, 10, 3)
