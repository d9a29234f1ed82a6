"""The command line gives the features of the encoder, called clip by clip."""

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch

import eat
from eat.audio.frontend import LogMel
from eat.data.dataset import audio_dataset
from eat.data.manifest import ManifestRow, write_manifest
from eat.inference import extraction
from eat.inference.extraction import FeatureFolder, compute_chunks
from eat.inference.features import AudioEncoder, pool
from eat.interop.pretrained import save_model
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "extract_features.py"
spec = importlib.util.spec_from_file_location("extract_features", SCRIPT)
extract_features = importlib.util.module_from_spec(spec)
spec.loader.exec_module(extract_features)

FRAMES, CLIPS, BATCH = 64, 20, 2  # so that a chunk has 16 clips
SOON = 25  # seconds; a launcher kills the other ranks after 30


def write_classifier(folder, seed):
    torch.manual_seed(seed)
    encoder = EATEncoder(dim=16, depth=2, num_heads=2, max_frames=2 * FRAMES)
    model = EATClassifier(encoder, 3)
    for parameter in model.parameters():  # large enough for clips to differ
        parameter.data += 0.3 * torch.randn_like(parameter)
    frontend = {"mean": -5.0, "std": 4.0, "num_frames": FRAMES}
    config = {"kind": "classifier", **model.config, "frontend": frontend}
    save_model(folder, config, model)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Tones of 0.2 to 1.15 s, some longer than 64 frames; manifest; model."""
    folder, random = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    rows = []
    for row in range(CLIPS):
        noise = random.uniform(-0.1, 0.1, 3200 + 800 * row)
        wav = noise + 0.5 * np.sin(0.15 * (row + 1) * np.arange(len(noise)))
        soundfile.write(folder / f"{row}.wav", wav, 16000, subtype="FLOAT")
        rows.append(ManifestRow(f"clip {row}", len(wav) / 16000, f"{row}.wav"))
    write_manifest(folder / "m.csv", rows)
    write_classifier(folder / "model", seed=0)
    return folder


def words(corpus, output, *options):
    given = {"--checkpoint": corpus / "model", "--batch_size": BATCH, "--device": "cpu"}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    options = [str(word) for pair in given.items() for word in pair]
    return [str(corpus / "m.csv"), str(output), "--data_root", str(corpus), *options]


def run(corpus, output, *options):
    extract_features.main(words(corpus, output, *options))
    return np.load(output / "features.npy", mmap_mode="r")


@pytest.fixture
def batches_seen(monkeypatch):
    """Sizes of the batches that the model encodes."""
    sizes, forward = [], AudioEncoder.forward

    def counted(self, wav, lengths):
        sizes.append(len(wav))
        return forward(self, wav, lengths)

    monkeypatch.setattr(AudioEncoder, "forward", counted)
    return sizes


@torch.no_grad()
def one_by_one(corpus, checkpoint, pooling, samples):
    """Features of the first samples of each clip."""
    encoder, frontend = eat.load_encoder(checkpoint), eat.load_frontend(checkpoint)
    found = []
    for row in range(CLIPS):
        wav, _ = soundfile.read(corpus / f"{row}.wav", dtype="float32")
        encoded = encoder(frontend(torch.from_numpy(wav[:samples])[None]))
        found.append(encoded.cls if pooling == "cls" else encoded.patches.mean(dim=1))
    return torch.cat(found).numpy()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", ["ours", "official_pretrain", "official_finetuned"])
def test_features_are_those_of_the_encoder(
    corpus, parity_folder, tmp_path, kind, pooling, capsys
):
    checkpoint = parity_folder / f"{kind}.pt"
    if kind == "ours":
        checkpoint = corpus / "model"
    frames = eat.load_frontend(checkpoint).num_frames
    options = ("--checkpoint", checkpoint, "--pooling", pooling)
    found = run(corpus, tmp_path, *options)
    expected = one_by_one(corpus, checkpoint, pooling, (frames - 1) * 160 + 400)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert found.std(axis=0).mean() > 0.01  # clips differ
    with open(tmp_path / "clips.csv", newline="") as file:
        table = [*csv.DictReader(file)]
    assert [line["id"] for line in table] == [f"clip {row}" for row in range(CLIPS)]
    assert not any(line["unreadable"] for line in table)
    assert capsys.readouterr().out == f"{tmp_path}: complete\n"
    weights = checkpoint
    if checkpoint.is_dir():
        weights = checkpoint / "model.safetensors"
    record = json.loads((tmp_path / "features.json").read_text())
    assert record["checkpoint"] == str(checkpoint.resolve())
    settings = record["settings"]
    assert settings["checkpoint_sha256"] == sha256(weights.read_bytes()).hexdigest()
    assert settings["pooling"] == pooling and settings["num_frames"] == frames
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]


def test_bf16_is_close_and_different(corpus, tmp_path):
    fp32 = run(corpus, tmp_path / "fp32")
    bf16 = run(corpus, tmp_path / "bf16", "--precision", "bf16")
    assert 0 < np.abs(fp32 - bf16).max() < 0.1


def test_options_override_the_checkpoint(corpus, tmp_path):
    options = ("--num_frames", 2 * FRAMES, "--norm_mean", -4.0, "--norm_std", 3.0)
    found = run(corpus, tmp_path, *options)
    frontend = LogMel(-4.0, 3.0, 2 * FRAMES)
    wav, _ = soundfile.read(corpus / "19.wav", dtype="float32")
    encoder = eat.load_encoder(corpus / "model")
    with torch.no_grad():
        expected = encoder(frontend(torch.from_numpy(wav)[None])).cls[0]
    np.testing.assert_allclose(found[19], expected, atol=2e-5)


def test_a_restart_computes_only_missing_chunks(
    corpus, tmp_path, batches_seen, monkeypatch, capsys
):
    whole = run(corpus, tmp_path / "whole").tobytes()
    assert sum(batches_seen) == CLIPS and max(batches_seen) == BATCH
    write, written = FeatureFolder.write, []

    def dying(self, chunk, *given):
        if written:
            raise KeyboardInterrupt
        written.append(chunk)
        write(self, chunk, *given)

    monkeypatch.setattr(FeatureFolder, "write", dying)
    with pytest.raises(SystemExit, match=str(128 + signal.SIGINT)):
        run(corpus, tmp_path / "parts")
    monkeypatch.setattr(FeatureFolder, "write", write)
    assert not (tmp_path / "parts" / "features.npy").exists()
    batches_seen.clear()
    assert run(corpus, tmp_path / "parts").tobytes() == whole
    assert batches_seen == [2, 2]  # rows 16 to 19
    batches_seen.clear()
    assert run(corpus, tmp_path / "parts").tobytes() == whole
    assert batches_seen == []
    assert capsys.readouterr().out.endswith("complete, nothing to do\n")


def test_a_signal_stops_it_cleanly(corpus, tmp_path, monkeypatch, capsys):
    write = FeatureFolder.write

    def signaled(self, *given):
        write(self, *given)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(FeatureFolder, "write", signaled)
    with pytest.raises(SystemExit) as stopped:
        run(corpus, tmp_path)
    assert stopped.value.code == 143
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line.startswith(f"{tmp_path}: ") and "SIGTERM" in last_line
    assert [*(tmp_path / "chunks").glob("*.npz")]


def test_processes_share_chunks_and_repeat_no_clip(corpus, tmp_path, batches_seen):
    """Here one after the other; the third one has no chunks."""
    whole = run(corpus, tmp_path / "whole").tobytes()
    batches_seen.clear()
    model = eat.from_pretrained(corpus / "model", device="cpu")
    clips = audio_dataset(corpus / "m.csv", corpus, None, model.max_seconds)
    store = FeatureFolder(tmp_path / "shared", CLIPS, 8 * BATCH, 16)
    store.start({})

    def compute(rank):
        compute_chunks(store, clips, model, "cls", BATCH, 1, rank, num_ranks=3)

    compute(rank=2)
    compute(rank=1)
    assert [store.has(0), store.has(1)] == [False, True]
    compute(rank=0)
    assert sum(batches_seen) == CLIPS
    store.join(clips.manifest.ids)
    found = np.load(tmp_path / "shared" / "features.npy")
    assert found.tobytes() == whole


def test_unreadable_clips_are_nan_and_named(corpus, tmp_path, capsys):
    clips = tmp_path / "clips"
    shutil.copytree(corpus, clips)
    (clips / "3.wav").write_text("not audio")
    (clips / "16.wav").unlink()  # a whole batch
    (clips / "17.wav").unlink()
    whole, found = run(corpus, tmp_path / "whole"), run(clips, tmp_path / "parts")
    unreadable = np.isin(np.arange(CLIPS), [3, 16, 17])
    assert np.isnan(found[unreadable]).all()
    np.testing.assert_allclose(found[~unreadable], whole[~unreadable], atol=2e-5)
    with open(tmp_path / "parts" / "clips.csv", newline="") as file:
        table = {int(line["row"]): line["unreadable"] for line in csv.DictReader(file)}
    assert [row for row, reason in table.items() if reason] == [3, 16, 17]
    assert table[16].startswith(f"{clips / '16.wav'}: ")
    record = json.loads((tmp_path / "parts" / "features.json").read_text())
    assert record["unreadable"] == 3
    assert "\n3 unreadable" in capsys.readouterr().out


def test_a_wrong_data_folder_is_detected_at_the_start(corpus, tmp_path):
    with pytest.raises(SystemExit, match="^error: none of 8 clips"):
        run(corpus, tmp_path / "features", "--data_root", str(tmp_path))
    assert len(run(corpus, tmp_path / "features")) == CLIPS  # the folder is still free


def test_other_features_are_refused(corpus, tmp_path):
    before = run(corpus, tmp_path / "features").tobytes()
    other = write_classifier(tmp_path / "other", seed=1)
    refusals = {
        ("--checkpoint", other): "checkpoint_sha256 was .*, now",
        ("--pooling", "mean"): "pooling was cls, now mean",
        ("--batch_size", 4): "batch_size was 2, now 4",
        ("--norm_mean", -4.0): "mean was -5.0, now -4.0",
    }
    for options, difference in refusals.items():
        refusal = rf"^error: \S+features: .*{difference}"
        with pytest.raises(SystemExit, match=refusal):
            run(corpus, tmp_path / "features", *options)
    shorter = tmp_path / "clips"
    shutil.copytree(corpus, shorter)
    lines = (corpus / "m.csv").read_text().splitlines(keepends=True)
    (shorter / "m.csv").write_text("".join(lines[:-1]))
    with pytest.raises(SystemExit, match="manifest_sha256 was"):
        run(shorter, tmp_path / "features")
    assert run(corpus, tmp_path / "features").tobytes() == before


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--checkpoint", "none.pt"), "none.pt: "),
        (("--num_frames", 60), "num_frames 60: .*16"),
        (("--num_frames", 256), "num_frames 256: .*128"),
        (("--device", "abacus"), "--device abacus: "),
    ],
)
def test_errors_are_one_line(corpus, tmp_path, options, error):
    with pytest.raises(SystemExit, match=f"^error: {error}[^\n]*$"):
        run(corpus, tmp_path / "features", *options)
    assert not (tmp_path / "features").exists()


@pytest.fixture(scope="module")
def long_corpus(corpus, tmp_path_factory):
    """The same clips, forty times."""
    folder = tmp_path_factory.mktemp("long") / "clips"
    shutil.copytree(corpus, folder)
    rows = [
        ManifestRow(f"{time} {row}", 1.0, f"{row}.wav")
        for time in range(40)
        for row in range(CLIPS)
    ]
    write_manifest(folder / "m.csv", rows)
    return folder


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_bytes(launch, corpus, tmp_path):
    for processes in (1, 2):
        output = tmp_path / str(processes)
        launch(SCRIPT, *words(corpus, output), processes=processes)
    for name in ("features.npy", "clips.csv", "features.json"):
        found = {(tmp_path / str(n) / name).read_bytes() for n in (1, 2)}
        assert len(found) == 1, name


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_process_stops_the_others(launch, long_corpus, tmp_path, number):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = words(long_corpus, tmp_path / "killed")
    with open(tmp_path / "output.txt", "w") as output:
        process = subprocess.Popen(
            [*launcher, "--nproc_per_node=2", SCRIPT, *command],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
        )
        while not any((tmp_path / "killed" / "chunks").glob("*.npz")):
            assert process.poll() is None, (tmp_path / "output.txt").read_text()
            time.sleep(0.005)
        ranks = psutil.Process(process.pid).children()
        next(r for r in ranks if r.environ()["RANK"] == str(number)).kill()
        assert process.wait(timeout=SOON) != 0
    assert (tmp_path / "output.txt").read_text().count("Traceback") == 1  # launcher's
    complete = len([*(tmp_path / "killed" / "chunks").glob("*.npz")])
    assert 0 < complete < 50
    launch(SCRIPT, *command)  # resume with another number of processes
    launch(SCRIPT, *words(long_corpus, tmp_path / "whole"))
    found, whole = (
        (tmp_path / name / "features.npy").read_bytes() for name in ("killed", "whole")
    )
    assert found == whole


def table_of(output):
    with open(output / "clips.csv", newline="") as file:
        return [*csv.DictReader(file)]


def test_features_that_are_not_finite_count_as_failures(
    corpus, tmp_path, monkeypatch, capsys
):
    whole = run(corpus, tmp_path / "whole").copy()
    calls = []

    def broken(encoded, pooling):
        found = pool(encoded, pooling)
        calls.append(len(found))
        if len(calls) == 2:  # rows 2 and 3
            found[1, 0] = float("inf")
        return found

    monkeypatch.setattr(extraction, "pool", broken)
    found = run(corpus, tmp_path / "broken")
    assert np.isnan(found[3]).all()
    others = np.delete(np.arange(CLIPS), 3)
    np.testing.assert_array_equal(found[others], whole[others])
    assert [
        line["row"] for line in table_of(tmp_path / "broken") if line["unreadable"]
    ] == ["3"]
    assert "\n1 unreadable" in capsys.readouterr().out


def test_suspicious_clips_are_counted_and_absurd_ones_refused(tmp_path, caplog):
    tone = 0.5 * np.sin(0.1 * np.arange(8000))
    wavs = {
        "good": tone,
        "silent": np.zeros(8000),
        "short": tone[:300],
        "integers": 32768 * tone,
        "flipped": np.where(np.arange(8000) == 77, 1e30, tone),
        "nan": np.where(np.arange(8000) == 77, np.nan, tone),
    }
    for name, wav in wavs.items():
        soundfile.write(tmp_path / f"{name}.wav", wav, 16000, subtype="FLOAT")
    rows = [
        ManifestRow(name, len(w) / 16000, f"{name}.wav") for name, w in wavs.items()
    ]
    write_manifest(tmp_path / "m.csv", rows)
    write_classifier(tmp_path / "model", seed=0)
    found = run(tmp_path, tmp_path / "out")
    table = {line["id"]: line for line in table_of(tmp_path / "out")}
    assert {name for name in table if table[name]["warnings"]} == {
        "silent",
        "short",
        "integers",
    }
    assert {name for name in table if table[name]["unreadable"]} == {"flipped", "nan"}
    assert np.isfinite(found[:4]).all() and np.isnan(found[4:]).all()
    record = json.loads((tmp_path / "out" / "features.json").read_text())
    assert (record["warned"], record["unreadable"]) == (3, 2)
    assert "clips.csv: 3 " in caplog.text
