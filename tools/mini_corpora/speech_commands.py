"""A mini Speech Commands: ten Mandarin syllables of one voice, in the true layout.

The bank has one recorded voice that says many single syllables. Copies of it, shifted
in pitch and speed and heard through different rooms, stand in for speakers. That
exercises the recipe; the accuracy says nothing about speech recognition.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from scipy import fft

from mini_corpora.bank import SAMPLE_RATE, Bank
from mini_corpora.scenes import color, shift_pitch, vary
from mini_corpora.writing import generator, run_jobs, write_text, write_wav

FOLDER = "speech_commands_v0.02"
VOICE = "voice:ChuLo"
#: Word -> syllable; each is in the bank in at least two tones.
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
#: Pitches of the speakers lie between these, those of one speaker close together.
SPEAKER_SEMITONES = 5
UTTERANCE_SEMITONES = 0.3
#: Background noise -> how its power falls with frequency, as an exponent.
NOISES = {"white_noise": 0, "pink_noise": 1, "brown_noise": 2}
NOISE_SECONDS = 10

README = """# A mini Speech Commands

Made by tools/make_mini_corpora.py with the files and formats of Speech Commands v0.02:
1-s files at 16 kHz in a folder a word, validation_list.txt, testing_list.txt and
_background_noise_.

The words are ten Mandarin syllables, each in two tones, recorded by one voice. The
speakers are copies of that voice, shifted in pitch and speed and heard through
different rooms; no speaker is in two of the sets. This corpus exists to exercise the
recipe: **its accuracy means nothing**."""
LICENSE = """The words are adaptations of recordings of gcin-voice (Debian package
gcin-voice) by ChionMeilin / Chu Lo, licensed under Creative Commons Attribution 3.0,
https://creativecommons.org/licenses/by/3.0/ . Changes: cut, shifted in pitch and speed,
filtered, mixed with noise. The adaptations are under the same license. The files in
_background_noise_ are computed and free of rights."""


@dataclass(frozen=True)
class SpeechCommandsSizes:
    """Speakers of each set; every speaker says every word twice."""

    train: int = 24
    validation: int = 4
    test: int = 4


@dataclass(frozen=True)
class Speaker:
    """One copy of the voice: its name in file names, its pitch, its room's seed."""

    name: str
    semitones: float
    index: int


def write_speech_commands(
    bank: Bank, folder: Path, seed: int, sizes: SpeechCommandsSizes, workers: int
) -> None:
    """Write the mini Speech Commands.

    Parameters
    ----------
    bank : Bank
        All clips.
    folder : Path
        Becomes ``speech_commands_v0.02``: ``<word>/<speaker>_nohash_<n>.wav``, the
        lists of the validation and test files, background noises. Must exist.
    seed : int
        The corpora's seed.
    sizes : SpeechCommandsSizes
        How many speakers.
    workers : int
        Threads at a time; does not change the result.
    """
    recordings = word_recordings(bank)
    sets = draw_speakers(seed, sizes)
    for word in [*WORDS, "_background_noise_"]:
        (folder / word).mkdir()
    jobs = [
        (word, speaker, n)
        for word in WORDS
        for speakers in sets.values()
        for speaker in speakers
        for n in range(UTTERANCES)
    ]

    def write_utterance(job: tuple[str, Speaker, int]) -> None:
        word, speaker, n = job
        audio = _render(recordings[word][n], speaker, f"{FOLDER}/{word}/{n}", seed)
        write_wav(folder / _file_name(*job), audio)

    run_jobs(write_utterance, jobs, workers, "Speech Commands")
    for subset, name in (("validation", "validation"), ("test", "testing")):
        listed = [_file_name(*job) for job in jobs if job[1] in sets[subset]]
        write_text(folder / f"{name}_list.txt", sorted(listed))
    for name, exponent in NOISES.items():
        noise = _colored_noise(exponent, generator(seed, f"{FOLDER}/{name}"))
        write_wav(folder / "_background_noise_" / f"{name}.wav", noise)
    write_text(folder / "README.md", [README])
    write_text(folder / "LICENSE", [LICENSE])


def word_recordings(bank: Bank) -> dict[str, list[np.ndarray]]:
    """Return the recordings ``[S]`` of each word, its tones in order.

    Parameters
    ----------
    bank : Bank
        All clips; the syllable is the folder of a clip's original file, a digit at
        its end the tone.
    """
    words = {syllable: word for word, syllable in WORDS.items()}
    found: dict[str, dict[str, np.ndarray]] = {word: {} for word in WORDS}
    for clip in bank.select(group=VOICE).clips:
        syllable = PurePosixPath(clip.original).parent.name
        word = words.get(syllable.rstrip("2345"))
        if word:
            found[word][syllable] = clip.audio
    return {word: [tones[t] for t in sorted(tones)] for word, tones in found.items()}


def draw_speakers(seed: int, sizes: SpeechCommandsSizes) -> dict[str, list[Speaker]]:
    """Draw the speakers of each set: evenly spread pitches, dealt at random.

    Parameters
    ----------
    seed : int
        The corpora's seed.
    sizes : SpeechCommandsSizes
        How many speakers.
    """
    total = sizes.train + sizes.validation + sizes.test
    rng = generator(seed, f"{FOLDER}/speakers")
    pitches = np.linspace(-SPEAKER_SEMITONES, SPEAKER_SEMITONES, total)
    names = [f"{number:08x}" for number in rng.integers(2**32, size=total)]
    speakers = [
        Speaker(name, float(pitch), index)
        for index, (name, pitch) in enumerate(
            zip(names, rng.permutation(pitches), strict=True)
        )
    ]
    first_test = sizes.train + sizes.validation
    return {
        "train": speakers[: sizes.train],
        "validation": speakers[sizes.train : first_test],
        "test": speakers[first_test:],
    }


def _file_name(word: str, speaker: Speaker, n: int) -> str:
    """Name an utterance as Speech Commands does."""
    return f"{word}/{speaker.name}_nohash_{n}.wav"


def _render(audio: np.ndarray, speaker: Speaker, name: str, seed: int) -> np.ndarray:
    """Let a speaker say a recorded word, at a random place of a second."""
    rng = generator(seed, name, speaker.index)
    word = vary(shift_pitch(audio, speaker.semitones), UTTERANCE_SEMITONES, rng)
    level = np.float32(10 ** (-rng.uniform(50, 70) / 20))
    second = level * rng.standard_normal(SAMPLE_RATE, dtype=np.float32)
    start = rng.integers(SAMPLE_RATE - len(word))
    second[start : start + len(word)] += word
    # The same seed for all of the speaker's words: the room stays the same.
    second = color(second, generator(seed, f"{FOLDER}/room", speaker.index))
    return second / max(1, np.abs(second).max())


def _colored_noise(exponent: int, rng: np.random.Generator) -> np.ndarray:
    """Draw noise whose power falls with frequency as ``1 / f ** exponent``."""
    spectrum = fft.rfft(rng.standard_normal(NOISE_SECONDS * SAMPLE_RATE))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (exponent / 2)
    spectrum[0] = 0
    noise = fft.irfft(spectrum)
    return 0.5 * noise / np.abs(noise).max()
