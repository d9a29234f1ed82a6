"""`eat features` writes what the encoder gives, called clip by clip."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch

import eat
from eat import cli
from eat.audio.frontend import LogMel
from eat.data.manifest import ManifestRow, write_manifest
from eat.inference.chunk_encoding import ClipEncoder
from eat.inference.feature_folder import FeatureFolder
from eat.interop.pretrained import save_model
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "eat" / "cli.py"

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


def words(corpus, output, *options, paths=None, model=None):
    given = {"--batch_size": BATCH, "--device": "cpu", "--data_root": corpus}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    command = ["features", model or corpus / "model", *(paths or [corpus / "m.csv"])]
    options = [word for pair in given.items() for word in pair]
    return [str(word) for word in (*command, "--out", output, *options)]


def run(corpus, output, *options, status=0, **given):
    """Run the command in this process; it must exit with this status."""
    if status:
        with pytest.raises(SystemExit) as ended:
            cli.main(words(corpus, output, *options, **given))
        assert ended.value.code == status
    else:
        cli.main(words(corpus, output, *options, **given))
    is_file = output.suffix == ".npy"
    return np.load(output if is_file else output / "features.npy", mmap_mode="r")


@pytest.fixture
def batches_seen(monkeypatch):
    """Sizes of the batches that the model encodes."""
    sizes = []

    encode = ClipEncoder.encode

    def counted(self, clips):
        sizes.append(len(clips))
        return encode(self, clips)

    monkeypatch.setattr(ClipEncoder, "encode", counted)
    return sizes


@torch.no_grad()
def one_by_one(corpus, checkpoint, pooling, samples):
    """Features of each clip that fits into the model, NaN for the others."""
    encoder, frontend = eat.load_encoder(checkpoint), eat.load_frontend(checkpoint)
    found = []
    for row in range(CLIPS):
        wav, _ = soundfile.read(corpus / f"{row}.wav", dtype="float32")
        encoded = encoder(frontend(torch.from_numpy(wav[:samples])[None]))
        vector = encoded.cls if pooling == "cls" else encoded.patches.mean(dim=1)
        found.append(vector if len(wav) <= samples else torch.nan * vector)
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
    found = run(corpus, tmp_path, "--pooling", pooling, model=checkpoint)
    expected = one_by_one(corpus, checkpoint, pooling, (frames - 1) * 160 + 400)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    short = np.isfinite(expected[:, 0])
    assert short.sum() >= 10
    np.testing.assert_allclose(found[short], expected[short], atol=2e-5)
    model = eat.from_pretrained(checkpoint, device="cpu")
    for row in range(CLIPS):
        alone = model.encode_file(corpus / f"{row}.wav", pooling=pooling).numpy()
        np.testing.assert_allclose(found[row], alone, atol=2e-5)
    assert found.std(axis=0).mean() > 0.01  # clips differ
    with open(tmp_path / "clips.csv", newline="") as file:
        table = [*csv.DictReader(file)]
    assert [line["path"] for line in table] == [f"clip {row}" for row in range(CLIPS)]
    assert not any(line["failure"] for line in table)
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

    def dying(self, chunk):
        if written:
            raise KeyboardInterrupt
        written.append(chunk)
        return write(self, chunk)

    monkeypatch.setattr(FeatureFolder, "write", dying)
    with pytest.raises(SystemExit, match=str(128 + signal.SIGINT)):
        run(corpus, tmp_path / "parts")
    monkeypatch.setattr(FeatureFolder, "write", write)
    assert not (tmp_path / "parts" / "features.npy").exists()
    batches_seen.clear()
    assert run(corpus, tmp_path / "parts").tobytes() == whole
    assert sum(batches_seen) == 4  # rows 16 to 19
    batches_seen.clear()
    assert run(corpus, tmp_path / "parts").tobytes() == whole
    assert batches_seen == []
    assert capsys.readouterr().out.endswith("complete, nothing to do\n")


def test_a_signal_stops_it_cleanly(corpus, tmp_path, monkeypatch, capsys):
    write = FeatureFolder.write

    @contextmanager
    def signaled(self, chunk):
        with write(self, chunk) as file:
            yield file
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(FeatureFolder, "write", signaled)
    with pytest.raises(SystemExit) as stopped:
        run(corpus, tmp_path)
    assert stopped.value.code == 143
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line.startswith(f"{tmp_path}: ") and "SIGTERM" in last_line
    assert [*(tmp_path / "chunks").glob("*.npz")]


def test_a_signal_stops_a_long_recording_between_windows(tmp_path, monkeypatch):
    write_classifier(tmp_path / "model", seed=0)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 16000 * 60)
    soundfile.write(tmp_path / "long.flac", noise, 16000)
    forward, passes = EATEncoder.forward, []

    def signaled(self, *given, **options):
        passes.append(given)
        if len(passes) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *given, **options)

    monkeypatch.setattr(EATEncoder, "forward", signaled)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, tmp_path / "out.npy", paths=[tmp_path / "long.flac"])
    assert stopped.value.code == 143 and len(passes) < 10  # of 24


def test_parts_share_chunks_and_repeat_no_clip(corpus, tmp_path, batches_seen, capsys):
    """Here one after the other; the third one has no chunks."""
    whole = run(corpus, tmp_path / "whole").tobytes()
    batches_seen.clear()
    for part in ("3/3", "2/3"):
        cli.main(words(corpus, tmp_path / "shared", "--part", part))
        out = capsys.readouterr().out
        assert f"part {part[0]} of 3 " in out and "--part 1/3)" in out
    assert sum(batches_seen) == CLIPS - 8 * BATCH
    with pytest.raises(SystemExit, match=r"^error: .*shared: part 1 of 3 "):
        cli.main(words(corpus, tmp_path / "shared", "--merge", "3"))
    found = run(corpus, tmp_path / "shared", "--part", "1/3", "--num_workers", 1)
    assert sum(batches_seen) == CLIPS and found.tobytes() == whole
    assert capsys.readouterr().out.endswith("complete\n")
    assert not (tmp_path / "shared" / "chunks").exists()
    cli.main(words(corpus, tmp_path / "shared", "--part", "2/3"))
    assert capsys.readouterr().out.endswith("nothing to do\n")


def test_any_number_of_threads_gives_the_same_bytes(corpus, tmp_path):
    threads, found = torch.get_num_threads(), set()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            output = tmp_path / str(number)
            found.add(run(corpus, output, "--layers", "all").tobytes())
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


def test_clips_of_similar_length_are_encoded_together(corpus, tmp_path, monkeypatch):
    forward, frames = EATEncoder.forward, []

    def watched(self, spec, *given, **options):
        frames.append(len(spec) * spec.shape[1])
        return forward(self, spec, *given, **options)

    monkeypatch.setattr(EATEncoder, "forward", watched)
    shuffled, rows = tmp_path / "m.csv", [*range(0, CLIPS, 2), *range(1, CLIPS, 2)]
    lines = (corpus / "m.csv").read_text().splitlines(keepends=True)
    shuffled.write_text("".join([lines[0], *(lines[1 + row] for row in rows)]))
    model = eat.from_pretrained(corpus / "model", device="cpu")
    expected = [model.encode_file(corpus / f"{r}.wav", pad_to="clip") for r in rows]
    alone, _ = sum(frames), frames.clear()
    found = run(corpus, tmp_path / "out", "--pad_to", "clip", paths=[shuffled])
    np.testing.assert_allclose(found, [f.numpy() for f in expected], atol=1e-5)
    assert sum(frames) < 1.1 * alone


def test_resuming_keeps_the_batch_size(corpus, tmp_path, capsys):
    whole = run(corpus, tmp_path / "out")
    command = words(corpus, tmp_path / "out")
    place = command.index("--batch_size")
    cli.main(command[:place] + command[place + 2 :])
    assert capsys.readouterr().out.endswith("nothing to do\n")
    cli.main([*command[:place], *command[place + 2 :], "--out", str(tmp_path / "new")])
    record = json.loads((tmp_path / "new" / "features.json").read_text())
    assert record["settings"]["batch_size"] > BATCH
    found = np.load(tmp_path / "new" / "features.npy")
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_unreadable_clips_are_nan_and_named(corpus, tmp_path, capsys):
    clips = tmp_path / "clips"
    shutil.copytree(corpus, clips)
    (clips / "3.wav").write_text("not audio")
    (clips / "16.wav").unlink()  # a whole batch
    (clips / "17.wav").unlink()
    whole = run(corpus, tmp_path / "whole")
    found = run(clips, tmp_path / "parts", status=1)
    unreadable = np.isin(np.arange(CLIPS), [3, 16, 17])
    assert np.isnan(found[unreadable]).all()
    np.testing.assert_allclose(found[~unreadable], whole[~unreadable], atol=2e-5)
    with open(tmp_path / "parts" / "clips.csv", newline="") as file:
        table = {int(line["row"]): line["failure"] for line in csv.DictReader(file)}
    assert [row for row, reason in table.items() if reason] == [3, 16, 17]
    assert table[16].startswith(f"{clips / '16.wav'}: ")
    record = json.loads((tmp_path / "parts" / "features.json").read_text())
    assert record["failed"] == 3
    answer = capsys.readouterr()
    assert answer.err.startswith("failed: 3 clips")
    assert str(tmp_path / "parts" / "clips.csv") in answer.err
    run(clips, tmp_path / "parts", status=1)  # nothing to do, and still incomplete


def test_a_wrong_data_folder_is_detected_at_the_start(corpus, tmp_path):
    with pytest.raises(SystemExit, match="^error: none of 8 clips"):
        run(corpus, tmp_path / "features", "--data_root", str(tmp_path))
    assert not (tmp_path / "features").exists()
    assert len(run(corpus, tmp_path / "features")) == CLIPS  # the folder is still free


def test_other_features_are_refused(corpus, tmp_path):
    before = run(corpus, tmp_path / "features").tobytes()
    other = write_classifier(tmp_path / "other", seed=1)
    refusals = {
        ("--pooling", "mean"): "pooling was cls, now mean",
        ("--layers", "0"): "layers was 1, now 0",
        ("--granularity", "frames"): "granularity was clip, now frames",
        ("--batch_size", 4): "batch_size was 2, now 4",
        ("--norm_mean", -4.0): "mean was -5.0, now -4.0",
    }
    for options, difference in refusals.items():
        refusal = rf"^error: \S+features: .*{difference}"
        with pytest.raises(SystemExit, match=refusal):
            run(corpus, tmp_path / "features", *options)
    with pytest.raises(SystemExit, match="checkpoint_sha256 was .*, now"):
        run(corpus, tmp_path / "features", model=other)
    shorter = tmp_path / "clips"
    shutil.copytree(corpus, shorter)
    lines = (corpus / "m.csv").read_text().splitlines(keepends=True)
    (shorter / "m.csv").write_text("".join(lines[:-1]))
    with pytest.raises(SystemExit, match="clips was 20, now 19"):
        run(shorter, tmp_path / "features")
    assert run(corpus, tmp_path / "features").tobytes() == before


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--layers", "2"), "--layers.* 2"),
        (("--window", "100"), "--window 100"),
        (("--pooling", "cls", "--granularity", "frames"), "--pooling"),
        (("--hop_ms", "40"), "--hop_ms 40"),
        (("--weights", "teacher"), ".*teacher"),
        (("--num_frames", 60), "num_frames 60: .*16"),
        (("--num_frames", 256), "num_frames 256: .*128"),
        (("--device", "abacus"), "device 'abacus'"),
    ],
)
def test_errors_are_one_line(corpus, tmp_path, options, error):
    with pytest.raises(SystemExit, match=f"^error: {error}[^\n]*$"):
        run(corpus, tmp_path / "features", *options)
    assert not (tmp_path / "features").exists()


def test_an_empty_output_is_not_the_current_folder(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        cli.main(words(corpus, ""))
    assert not any(tmp_path.iterdir())


def test_what_is_wrong_is_said_before_torch_is_imported(run_code):
    commands = {
        "none.pt sounds --out out": "none.pt: ",
        ". none.wav --out out": "none.wav: ",
        ". none.csv --out out": "none.csv: ",
        ". . --out out.h5": "--out out.h5: ",
        ". . --out out.npy --granularity frames": "--out out.npy: ",
    }
    code = """
import sys
from eat import cli
for command in sys.argv[1:]:
    try:
        cli.main(["features", *command.split()])
    except SystemExit as stopped:
        print(stopped)
assert "torch" not in sys.modules
"""
    lines = run_code(code, *commands)[0].splitlines()
    for line, error in zip(lines, commands.values(), strict=True):
        assert line.startswith(f"error: {error}")


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
    run(corpus, tmp_path / "1")
    launch(SCRIPT, *words(corpus, tmp_path / "2"), processes=2)
    for name in ("features.npy", "clips.csv", "features.json"):
        found = {(tmp_path / str(n) / name).read_bytes() for n in (1, 2)}
        assert len(found) == 1, name


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_process_stops_the_others(corpus, long_corpus, tmp_path, number):
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
    found = run(long_corpus, tmp_path / "killed")  # resume with one process
    whole = run(corpus, tmp_path / "whole")
    np.testing.assert_array_equal(found, np.tile(whole, (40, 1)))


def table_of(output):
    with open(output / "clips.csv", newline="") as file:
        return [*csv.DictReader(file)]


def test_features_that_are_not_finite_count_as_failures(
    corpus, tmp_path, monkeypatch, capsys
):
    whole = run(corpus, tmp_path / "whole").copy()
    check = ClipEncoder._finite

    def broken(self, clips, failures):
        if 3 in clips:
            clips[3].values[0] = float("inf")
        return check(self, clips, failures)

    monkeypatch.setattr(ClipEncoder, "_finite", broken)
    found = run(corpus, tmp_path / "broken", status=1)
    assert np.isnan(found[3]).all()
    others = np.delete(np.arange(CLIPS), 3)
    np.testing.assert_array_equal(found[others], whole[others])
    assert [
        line["row"] for line in table_of(tmp_path / "broken") if line["failure"]
    ] == ["3"]
    assert capsys.readouterr().err.startswith("failed: 1 clips")


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
    found = run(tmp_path, tmp_path / "out", status=1)
    table = {line["path"]: line for line in table_of(tmp_path / "out")}
    assert {name for name in table if table[name]["warnings"]} == {
        "silent",
        "short",
        "integers",
    }
    assert {name for name in table if table[name]["failure"]} == {"flipped", "nan"}
    assert np.isfinite(found[:4]).all() and np.isnan(found[4:]).all()
    record = json.loads((tmp_path / "out" / "features.json").read_text())
    assert (record["warned"], record["failed"]) == (3, 2)
    assert "clips.csv: 3 " in caplog.text
