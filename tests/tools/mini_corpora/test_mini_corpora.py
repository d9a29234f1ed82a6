"""The mini corpora: files, formats, reproducibility and disjoint sources."""

import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from eat.errors import ManifestError
from mini_corpora.audioset import (
    CHILDREN,
    KINDS,
    LABELS,
    MIDS,
    PARENT,
    AudioSetSizes,
    labels_of,
    subset_sources,
)
from mini_corpora.bank import load_bank
from mini_corpora.corpora import MARKER, make_mini_corpora
from mini_corpora.esc50 import CATEGORIES, ESC50Sizes, plan_takes
from mini_corpora.speech_commands import WORDS, SpeechCommandsSizes, draw_speakers

BANK = Path(__file__).parents[3] / "tools" / "bank"
TINY = (
    AudioSetSizes(balanced_train=12, unbalanced_train=17, eval=6, seconds=0.64),
    ESC50Sizes(clips=1),
    SpeechCommandsSizes(train=1, validation=1, test=1),
)


@pytest.fixture(scope="module")
def clips():
    return load_bank(BANK)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    out = tmp_path_factory.mktemp("mini")
    make_mini_corpora(BANK, out, seed=3, sizes=TINY, workers=1)
    return out


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_segments(path):
    """Read a segment list as is commonly done."""
    with path.open(newline="") as stream:
        comments = [next(stream) for _ in range(3)]
        rows = list(csv.reader(stream, skipinitialspace=True))
    assert all(line.startswith("# ") for line in comments)
    return comments, rows


# -- all corpora -------------------------------------------------------------------


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_with_any_number_of_workers(corpora, tmp_path):
    make_mini_corpora(BANK, tmp_path, seed=3, sizes=TINY, workers=3)
    assert digests(tmp_path) == digests(corpora)


@pytest.mark.slow
def test_another_seed_gives_different_audio(corpora, tmp_path):
    make_mini_corpora(BANK, tmp_path, seed=4, sizes=TINY)
    audio, other_audio = (
        {d for name, d in digests(out).items() if name.endswith(".wav")}
        for out in (corpora, tmp_path)
    )
    assert not audio & other_audio


def test_every_file_is_mono_16_bit_at_16_khz(corpora):
    seconds = {"AudioSet": 0.64, "ESC-50-master": 5, "speech_commands_v0.02": 1}
    paths = list(corpora.rglob("*.wav"))
    assert len(paths) == 35 + 50 + 63
    for path in paths:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        if path.parent.name != "_background_noise_":
            corpus = path.relative_to(corpora).parts[0]
            assert info.frames == round(seconds[corpus] * 16000)
        assert np.abs(soundfile.read(path)[0]).max() > 0.01


def test_complete_folder_is_not_changed(corpora):
    before = {path: path.stat().st_mtime_ns for path in corpora.rglob("*")}
    make_mini_corpora(BANK, corpora, seed=3, sizes=TINY)
    assert {path: path.stat().st_mtime_ns for path in corpora.rglob("*")} == before


@pytest.mark.slow
def test_interrupted_run_is_completed(corpora, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mini_corpora.esc50.write_corpus", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_mini_corpora(BANK, tmp_path, seed=3, sizes=TINY)
    assert (tmp_path / "AudioSet").exists()
    assert not (tmp_path / "ESC-50-master").exists()
    make_mini_corpora(BANK, tmp_path, seed=3, sizes=TINY)
    assert digests(tmp_path) == digests(corpora)


@pytest.mark.slow
def test_folder_with_another_seed_or_other_sizes_is_refused(corpora):
    before = digests(corpora)
    path = re.escape(str(corpora / "AudioSet"))
    with pytest.raises(ManifestError, match=f"{path}.*'seed': 3.*'seed': 4"):
        make_mini_corpora(BANK, corpora, seed=4, sizes=TINY)
    with pytest.raises(ManifestError, match=f"{path}.*'sizes'"):
        make_mini_corpora(BANK, corpora, seed=3)
    assert digests(corpora) == before


@pytest.mark.parametrize("name", ["ESC-50-master", ".ESC-50-master.partial"])
def test_folder_with_other_content_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes.txt").write_text("important")
    with pytest.raises(ManifestError, match=re.escape(str(tmp_path / name))):
        make_mini_corpora(BANK, tmp_path, sizes=TINY)
    assert [p.name for p in tmp_path.rglob("*")] == [name, "notes.txt"]


def test_marker_holds_the_seed_and_attribution_is_included(corpora):
    for folder in corpora.iterdir():
        assert json.loads((folder / MARKER).read_text())["seed"] == 3
        assert "CC-BY-3.0" in (folder / "ATTRIBUTION.md").read_text()


# -- AudioSet ----------------------------------------------------------------------


def test_segment_lists_have_the_official_format(corpora):
    folder = corpora / "AudioSet"
    sizes = {"balanced_train": 12, "unbalanced_train": 17, "eval": 6}
    all_ids = []
    for name, size in sizes.items():
        comments, rows = read_segments(folder / f"{name}_segments.csv")
        assert comments[2] == "# YTID, start_seconds, end_seconds, positive_labels\n"
        positives = sum(len(row[3].split(",")) for row in rows if row[3])
        assert f"num_ytids={size}, num_segs={size}, " in comments[1]
        assert comments[1].endswith(f"num_positive_labels={positives}\n")
        assert len(rows) == size and all(len(row) == 4 for row in rows)
        assert all(row[1:3] == ["0.000", "0.640"] for row in rows)
        assert {m for row in rows for m in row[3].split(",")} <= {"", *MIDS.values()}
        ids = [row[0] for row in rows]
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{11}", i) for i in ids)
        assert any(i[0] in "-_" for i in ids)
        files = (folder / "audio" / name).iterdir()
        assert {path.name for path in files} == {f"{i}.wav" for i in ids}
        all_ids += ids
    assert len(set(all_ids)) == len(all_ids)


def test_class_list_has_the_official_format(corpora):
    path = corpora / "AudioSet" / "class_labels_indices.csv"
    table = pd.read_csv(path)
    assert list(table.columns) == ["index", "mid", "display_name"]
    assert list(table["index"]) == list(range(20))
    assert list(table["display_name"]) == LABELS
    assert path.read_text().splitlines()[1] == '0,/m/mini01,"Auxiliary percussion"'


def test_labels_nest(corpora):
    assert set(CHILDREN) < set(KINDS) and PARENT not in KINDS
    assert labels_of(["(other)", "Tom"]) == ["Drum", "Tom"]
    assert labels_of(["(choir)", "(other)"]) == []
    mids = {MIDS[child] for child in CHILDREN}
    for path in (corpora / "AudioSet").glob("*_segments.csv"):
        for row in read_segments(path)[1]:
            labels = set(row[3].split(","))
            assert bool(labels & mids) == (MIDS[PARENT] in labels)


def test_train_and_eval_share_no_source_and_every_kind_has_sources(clips):
    subsets = subset_sources(clips)
    groups = {
        name: {group for found in sources.values() for group in found}
        for name, sources in subsets.items()
    }
    assert not groups["eval"] & (groups["balanced_train"] | groups["unbalanced_train"])
    for sources in subsets.values():
        assert set(KINDS) <= set(sources)
        assert all(sources.values())
    assert "(other)" in subsets["unbalanced_train"]
    assert "(other)" not in subsets["balanced_train"]


# -- ESC-50 ------------------------------------------------------------------------


def test_esc50_table_has_the_official_format(corpora):
    folder = corpora / "ESC-50-master"
    table = pd.read_csv(folder / "meta" / "esc50.csv")
    columns = "filename fold target category esc10 src_file take".split()
    assert list(table.columns) == columns
    assert table["esc10"].dtype == bool
    assert set(table.groupby(["fold", "target"]).size()) == {1}
    assert set(table["fold"]) == {1, 2, 3, 4, 5}
    assert list(table["filename"]) == [
        f"{row.fold}-{row.src_file}-{row.take}-{row.target}.wav"
        for row in table.itertuples()
    ]
    files = {path.name for path in (folder / "audio").iterdir()}
    assert files == set(table["filename"])
    names = table.drop_duplicates("target").sort_values("target")["category"]
    assert list(names) == list(CATEGORIES)


def test_takes_are_of_their_class_and_fold(clips):
    takes = plan_takes(clips, 0, ESC50Sizes())
    assert len(takes) == 400
    assert len({take.row["filename"] for take in takes}) == 400
    for take in takes:
        assert take.clip.label in CATEGORIES[take.row["category"]]
        assert take.clip.fold == str(take.row["fold"])


def test_every_fold_has_two_recordings_of_every_class(clips):
    found = {}
    for take in plan_takes(clips, 0, ESC50Sizes()):
        cell = found.setdefault((take.row["fold"], take.row["target"]), set())
        cell.add(take.row["src_file"])
    assert len(found) == 50 and min(map(len, found.values())) >= 2


def test_esc50_clips_are_padded_with_digital_silence(corpora):
    for path in (corpora / "ESC-50-master" / "audio").iterdir():
        audio, _ = soundfile.read(path, dtype="int16")
        assert np.mean(audio == 0) > 0.05


# -- Speech Commands ---------------------------------------------------------------


def test_speech_commands_lists_share_no_speaker(corpora):
    folder = corpora / "speech_commands_v0.02"
    lists = {
        name: (folder / f"{name}_list.txt").read_text().splitlines()
        for name in ("validation", "testing")
    }
    files = {
        str(path.relative_to(folder))
        for path in folder.glob("*/*.wav")
        if path.parent.name in WORDS
    }
    assert set(lists["validation"]) | set(lists["testing"]) < files
    lists["train"] = sorted(files - set(lists["validation"]) - set(lists["testing"]))
    speakers = []
    for listed in lists.values():
        assert len(listed) == 20
        matches = [
            re.fullmatch(r"[a-z]+/([0-9a-f]{8})_nohash_\d\.wav", x) for x in listed
        ]
        speakers.append({match[1] for match in matches})
    assert [len(found) for found in speakers] == [1, 1, 1]
    assert len(set.union(*speakers)) == 3


def test_speakers_have_distinct_names_and_pitches():
    sets = draw_speakers(0, SpeechCommandsSizes())
    assert [len(sets[name]) for name in ("train", "validation", "test")] == [24, 4, 4]
    speakers = [speaker for found in sets.values() for speaker in found]
    assert len({speaker.name for speaker in speakers}) == 32
    assert len({speaker.semitones for speaker in speakers}) == 32


def test_background_noises_are_longer_and_their_power_falls_with_frequency(corpora):
    slopes = []
    for name in ("white", "pink", "brown"):
        path = (
            corpora / "speech_commands_v0.02/_background_noise_" / f"{name}_noise.wav"
        )
        audio, _ = soundfile.read(path)
        assert len(audio) == 160000
        power = np.abs(np.fft.rfft(audio)) ** 2
        low, high = power[1000:2000].mean(), power[10000:20000].mean()
        slopes.append(np.log10(low / high))
    assert slopes == pytest.approx([0, 1, 2], abs=0.15)
