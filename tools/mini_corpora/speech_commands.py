"""A mini Speech Commands: ten Mandarin syllables of one voice, in the real layout.

The bank has a single voice that says many separate syllables. Its copies, shifted in
pitch and speed and placed in different rooms, serve as speakers. That exercises the
recipe; the accuracy says nothing about speech recognition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path, PurePosixPath

import numpy as np

from mini_corpora.bank import SAMPLE_RATE, Clip
from mini_corpora.scenes import color, faint_noise, shift_pitch, vary
from mini_corpora.writing import AudioPlan, generator, write_corpus

FOLDER = "speech_commands_v0.02"
VOICE = "voice:ChuLo"
#: Word -> syllable; the bank has each in at least two tones.
WORDS = {
    "beng": "ㄅㄥ",
    "diao": "ㄉㄧㄠ",
    "du": "ㄉㄨ",
    "guo": "ㄍㄨㄛ",
    "kong": "ㄎㄨㄥ",
    "lan": "ㄌㄢ",
    "ling": "ㄌㄧㄥ",
    "pan": "ㄆㄢ",
    "you": "ㄧㄡ",
    "zou": "ㄗㄡ",
}
UTTERANCES = 2
#: Range of the speakers' pitches, and of the pitches of one speaker's utterances.
SPEAKER_SEMITONES = 5
UTTERANCE_SEMITONES = 0.3
#: Background noise -> exponent of the decrease of its power with frequency.
NOISES = {"white_noise": 0, "pink_noise": 1, "brown_noise": 2}
NOISE_SECONDS = 10


@dataclass(frozen=True)
class SpeechCommandsSizes:
    """Number of speakers in each set; every speaker says every word twice."""

    train: int = 24
    validation: int = 4
    test: int = 4


@dataclass(frozen=True)
class Speaker:
    """One copy of the voice: name in file names, pitch, index of its room's seed."""

    name: str
    semitones: float
    index: int


def write_speech_commands(
    clips: Sequence[Clip],
    folder: Path,
    seed: int,
    sizes: SpeechCommandsSizes,
    workers: int,
) -> None:
    """Write the mini Speech Commands into an existing folder.

    The result is ``<word>/<speaker>_nohash_<n>.wav``, the lists of the validation and
    test files, and background noises; it does not depend on the number of `workers`.
    """
    audio: AudioPlan = {}
    texts = {}
    recordings = word_recordings(clips)
    listed = {"validation": "validation_list.txt", "test": "testing_list.txt"}
    for subset, speakers in draw_speakers(seed, sizes).items():
        files = {
            f"{word}/{speaker.name}_nohash_{n}.wav": partial(
                _render, recordings[word][n], speaker, f"{FOLDER}/{word}/{n}", seed
            )
            for word, speaker, n in product(WORDS, speakers, range(UTTERANCES))
        }
        audio |= files
        if subset in listed:
            texts[listed[subset]] = "".join(f"{path}\n" for path in sorted(files))
    for name, exponent in NOISES.items():
        audio[f"_background_noise_/{name}.wav"] = partial(
            _colored_noise, exponent, generator(seed, f"{FOLDER}/{name}")
        )
    write_corpus(FOLDER, folder, audio, texts, workers)


def word_recordings(clips: Sequence[Clip]) -> dict[str, list[np.ndarray]]:
    """Return the recordings `[S]` of each word, ordered by tone.

    The folder of a clip's original file is the syllable; a final digit is the tone.
    """
    words = {syllable: word for word, syllable in WORDS.items()}
    found: dict[str, dict[str, np.ndarray]] = {word: {} for word in WORDS}
    for clip in clips:
        syllable = PurePosixPath(clip.original).parent.name
        word = words.get(syllable.rstrip("2345"))
        if clip.group == VOICE and word:
            found[word][syllable] = clip.audio
    return {word: [tones[t] for t in sorted(tones)] for word, tones in found.items()}


def draw_speakers(seed: int, sizes: SpeechCommandsSizes) -> dict[str, list[Speaker]]:
    """Draw the speakers of each set, with evenly spaced pitches in random order."""
    total = sizes.train + sizes.validation + sizes.test
    rng = generator(seed, f"{FOLDER}/speakers")
    names = [f"{number:08x}" for number in rng.integers(2**32, size=total)]
    pitches = np.linspace(-SPEAKER_SEMITONES, SPEAKER_SEMITONES, total)
    pitches = rng.permutation(pitches).tolist()
    speakers = list(map(Speaker, names, pitches, range(total)))
    first_test = sizes.train + sizes.validation
    return {
        "train": speakers[: sizes.train],
        "validation": speakers[sizes.train : first_test],
        "test": speakers[first_test:],
    }


def _render(audio: np.ndarray, speaker: Speaker, name: str, seed: int) -> np.ndarray:
    """Render a word said by a speaker, at a random position in one second."""
    rng = generator(seed, name, speaker.index)
    word = vary(shift_pitch(audio, speaker.semitones), UTTERANCE_SEMITONES, rng)
    second = faint_noise(SAMPLE_RATE, rng)
    start = rng.integers(SAMPLE_RATE - len(word))
    second[start : start + len(word)] += word
    # All words of a speaker have the same seed here, and so the same room.
    second = color(second, generator(seed, f"{FOLDER}/room", speaker.index))
    return second / max(1, np.abs(second).max())


def _colored_noise(exponent: int, rng: np.random.Generator) -> np.ndarray:
    """Draw noise whose power falls with frequency as ``1 / f ** exponent``."""
    spectrum = np.fft.rfft(rng.standard_normal(NOISE_SECONDS * SAMPLE_RATE))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (exponent / 2)
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum)
    return 0.5 * noise / np.abs(noise).max()
