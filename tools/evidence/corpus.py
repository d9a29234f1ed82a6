"""The study's corpus: 10.24 s mixes, on the paper's grid of 64 x 8 patches."""

from __future__ import annotations

from pathlib import Path

from mini_corpora.audioset import FOLDER, AudioSetSizes
from mini_corpora.corpora import make_corpora

BANK = Path(__file__).resolve().parents[1] / "bank"
SIZES = AudioSetSizes(seconds=10.24, max_events=8)  # 1.8 GB


def make_corpus(out: Path) -> Path:
    """Make the corpus unless it exists; return its folder."""
    make_corpora(BANK, out, {FOLDER: SIZES})
    return out / FOLDER
