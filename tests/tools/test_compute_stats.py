import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.compliance.kaldi import fbank

from eat.data.manifest import ManifestRow, write_manifest

SCRIPT = Path(__file__).parents[2] / "tools" / "compute_stats.py"
spec = importlib.util.spec_from_file_location("compute_stats", SCRIPT)
compute_stats = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compute_stats)


@pytest.fixture
def corpus(tmp_path):
    """Five clips of 0.5 s, of different loudness, and their manifest."""
    random, rows = np.random.default_rng(0), []
    for number in range(5):
        wav = random.uniform(-0.9, 0.9, 8000) * 0.3**number
        soundfile.write(tmp_path / f"{number}.wav", wav, 16000, subtype="FLOAT")
        rows.append(ManifestRow(str(number), 0.5, f"{number}.wav"))
    write_manifest(tmp_path / "pretrain.csv", rows)
    return tmp_path


def run(corpus, *options):
    manifest = str(corpus / "pretrain.csv")
    compute_stats.main([manifest, "--data_folder", str(corpus), *options])


def bins(path, samples):
    """All bins of the first samples of a file, by torchaudio."""
    wav = torch.from_numpy(soundfile.read(path, dtype="float32")[0])[:samples]
    features = fbank(
        (wav - wav.mean())[None], num_mel_bins=128, window_type="hanning", dither=0.0
    )
    return features.double().flatten()


@pytest.mark.parametrize(("seconds", "samples"), [(10.26, 8000), (0.2, 3200)])
def test_prints_the_statistics_of_torchaudio(corpus, capsys, seconds, samples):
    run(corpus, "--max_seconds", str(seconds))
    values = torch.cat([bins(path, samples) for path in corpus.glob("*.wav")])
    mean, std = values.mean().item(), values.std(unbiased=False).item()
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"5 clips, {len(values) // 128} frames, 0 clips skipped"
    assert second == f"mean {mean:.4f}, standard deviation {std:.4f}"
    assert third == f"--norm_mean {mean:.3f} --norm_std {std:.3f}"


def test_the_seed_selects_the_clips(corpus, capsys):
    printed = []
    for seed in ("0", "0", "1", "2", "3"):
        run(corpus, "--clips", "2", "--seed", seed)
        printed.append(capsys.readouterr().out)
    assert all(text.startswith("2 clips, 96 frames") for text in printed)
    assert printed[0] == printed[1]
    assert len(set(printed)) > 2


def test_unreadable_files_are_skipped_counted_and_named(corpus, capsys):
    (corpus / "1.wav").write_text("not audio")
    (corpus / "3.wav").unlink()
    run(corpus)
    out, err = capsys.readouterr()
    assert out.startswith("3 clips, 144 frames, 2 clips skipped")
    named = re.findall(r"^skipped: \S*/(\d)\.wav: ", err, re.MULTILINE)
    assert sorted(named) == ["1", "3"]


def test_a_silent_or_missing_corpus_is_an_error(corpus):
    for path in corpus.glob("*.wav"):
        path.unlink()
    with pytest.raises(SystemExit, match="^error: .*--data_folder"):
        run(corpus)
    for path in range(5):
        soundfile.write(corpus / f"{path}.wav", np.zeros(8000), 16000)
    with pytest.raises(SystemExit, match="^error: .*--data_folder"):
        run(corpus)


def test_a_missing_manifest_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match="^error: .*pretrain.csv"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--clips", "0"),
        ("--clips", "-3"),
        ("--max_seconds", "0"),
        ("--max_seconds", "-1"),
        ("--max_seconds", "nan"),
        ("--max_seconds", "inf"),
        ("--max_seconds", "0.01"),
    ],
)
def test_absurd_options_are_refused(corpus, capsys, option, value):
    with pytest.raises(SystemExit) as stop:
        run(corpus, option, value)
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and f"{option}: '{value}'" in printed


def test_suspicious_clips_are_counted_and_absurd_ones_skipped(corpus, capsys):
    soundfile.write(corpus / "1.wav", np.zeros(8000), 16000)
    soundfile.write(corpus / "2.wav", np.full(100, 0.5), 16000)
    soundfile.write(corpus / "3.wav", [0.5, 1e30] * 4000, 16000, subtype="FLOAT")
    run(corpus)
    out, err = capsys.readouterr()
    assert out.startswith("4 clips, ") and "nan" not in out and "inf" not in out
    counts = re.findall(r"^warning: (\d+) clips .*(silent|short)", err, re.MULTILINE)
    assert sorted(counts) == [("1", "short"), ("1", "silent")]
    assert re.search(r"^skipped: .*\b3\b", err, re.MULTILINE)
