"""The AudioSet recipe, run as a user does, on a corpus of a few clips."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import eat
from eat.data.samplers import EpochSampler
from eat.errors import CheckpointError, EATError, ExperimentError, ManifestError
from eat.evaluation.per_class import read_class_ap
from mini_corpora.audioset import LABELS

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "AudioSet"
SHORT = (
    "--number_of_epochs 1 --steps_per_epoch 4 --batch_size 4 --log_interval 2 "
    "--device cpu --noprogressbar"
).split()
ALWAYS = {
    "hyperparams.yaml",
    "env.log",
    "log.txt",
    "train_log.txt",
    "metrics.jsonl",
    "results.json",
    "save",
    "model",
}
# Files that are rewritten, with dates, whenever a run is started.
REWRITTEN = {
    "hyperparams.yaml",
    "env.log",
    "log.txt",
    "experiment.py",
    "train.py",
    ".lock",
}

slow = pytest.mark.slow


def train(name, data, run, *options):
    """Call train.py as on a command line; return its status and outputs."""
    settings = RECIPE / "hparams" / f"{name}.yaml"
    folders = ["--data_folder", data, "--output_folder", run]
    return subprocess.run(
        [sys.executable, RECIPE / "train.py", settings, *folders, *SHORT, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def succeed(*args):
    finished = train(*args)
    assert finished.returncode == 0, finished.stderr
    return finished


def complaint(*args):
    """Return the one line on stderr with which a run refuses its input."""
    finished = train(*args)
    assert finished.returncode == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    lines = [x for x in finished.stderr.splitlines() if "torchvision" not in x]
    assert len(lines) == 1 and lines[0].startswith("error: "), finished.stderr
    return lines[0]


def contents(run):
    """Return the content of all files that only training may change."""
    files = [path for path in run.rglob("*") if path.is_file()]
    return {p: p.read_bytes() for p in files if p.name not in REWRITTEN}


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


def results(run):
    return json.loads((run / "results.json").read_text())


@pytest.fixture(scope="session")
def corpus(audioset, tmp_path_factory):
    """The tiny corpus with one unreadable clip."""
    folder = tmp_path_factory.mktemp("broken") / "AudioSet"
    shutil.copytree(audioset, folder)
    broken(folder).write_text("a page that says: no such video")
    return folder


def broken(corpus):
    return min((corpus / "audio" / "unbalanced_train").iterdir())


@pytest.fixture(scope="session")
def pretrained(corpus, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "pretrain"
    succeed("pretrain_mini", corpus, run)
    return run


@pytest.fixture(scope="session")
def finetuned(corpus, pretrained, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "finetune"
    model = pretrained / "model"
    succeed("finetune_mini", corpus, run, "--pretrained", model)
    return run


@slow
def test_pretraining(pretrained, corpus):
    assert {path.name for path in pretrained.iterdir()} >= ALWAYS
    steps = [record for record in records(pretrained) if record["kind"] == "step"]
    assert [record["step"] for record in steps] == [2, 4]
    assert all(record["loss"] > 0 and record["grad_norm"] > 0 for record in steps)
    assert results(pretrained)["clips_seen"] == 16
    model = eat.load_pretraining(pretrained / "model")
    spec = torch.zeros(1, 256, 128)
    assert model.student.encoder(spec).patches.isfinite().all()
    # The unreadable clip is skipped and listed.
    bad = broken(corpus).stem
    assert bad in (pretrained / "manifests" / "skipped.csv").read_text()
    assert bad not in (pretrained / "manifests" / "pretrain.csv").read_text()


FOLDERS = ("--data_folder", "in", "--output_folder", "out")


def test_run_sh_calls(run_sh):
    calls = run_sh("AudioSet", *FOLDERS, "--stop_stage", "3", "--ngpu", "2").stdout
    assert f"{RECIPE}/audioset_prepare.py in out/manifests\n" in calls
    assert "--nproc_per_node=2" in calls and "--grad_accumulation_factor 2" in calls
    assert "finetune_as20k.yaml" in calls and "--pretrained out/pretrain/model" in calls
    only = ["--stage", "2", "--stop_stage", "2", "--mini", "true"]
    calls = run_sh("AudioSet", *FOLDERS, *only).stdout
    assert "pretrain_mini.yaml" in calls and "accumulation" not in calls
    assert "prepare" not in calls and "finetune" not in calls


@pytest.mark.parametrize(("kind", "number"), [("table", 3), ("figure", 4)])
def test_run_sh_reproduces(run_sh, kind, number):
    called = run_sh("AudioSet", f"--{kind}", str(number), "--seeds", "2", "--list")
    script, *options = called.stdout.split()
    assert Path(script).resolve() == ROOT / "tools" / "reproduce.py"
    assert options == [f"--{kind}", str(number), "--seeds", "2", "--list"]


@pytest.mark.parametrize(
    "options",
    ["--nonsense 1", "--data_folder", "--ngpu 3", "--stage 5", "--mini 1", "--table"],
)
def test_run_sh_refuses(options, run_sh):
    options = options.split()
    refused = run_sh("AudioSet", *(FOLDERS if options != ["--table"] else ()), *options)
    assert refused.returncode == 2 and "--data_folder DIR" in refused.stderr
    assert refused.stdout == ""


WEIGHTED = (
    "--pretrained none --number_of_epochs 2 --steps_per_epoch 3 --batch_size 4"
).split()


@pytest.fixture(scope="module")
def seen(load_recipe, run_recipe, audioset):
    """Fine-tune in this process; return the clips of every epoch."""
    recipe = load_recipe("AudioSet")

    def run(folder, *options, stop_at=None):
        clips = {}

        class Watched(recipe.AudioSetFinetuneBrain):
            def on_fit_batch_start(self, batch, should_step):
                if (self.epoch, self.step) == stop_at:
                    raise KeyboardInterrupt
                clips.setdefault(self.epoch, []).extend(batch.ids)
                super().on_fit_batch_start(batch, should_step)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recipe, "AudioSetFinetuneBrain", Watched)
            options = [*WEIGHTED, *options]
            try:
                run_recipe("AudioSet", "finetune_mini", audioset, folder, *options)
            except KeyboardInterrupt:
                pass
        return clips

    return run


@slow
def test_weighted_draws_change_what_an_epoch_sees(seen, audioset, tmp_path):
    draws = ["--weighted_draws", 16]
    plain, weighted = seen(tmp_path / "a"), seen(tmp_path / "b", *draws)
    order = list(EpochSampler(24, 12, seed=1))
    with open(tmp_path / "a" / "manifests" / "balanced_train.csv") as file:
        names = [line.split(",")[0] for line in file][1:]
    assert plain[1] == [names[index] for index in order]
    for epochs in (plain, weighted):
        assert [len(set(epochs[epoch])) for epoch in (1, 2)] == [12, 12]
    assert set(weighted[1]) != set(plain[1])
    # Weighted draws of different epochs overlap, parts of one shuffle do not.
    assert not set(plain[1]) & set(plain[2]) and set(weighted[1]) & set(weighted[2])
    other = seen(tmp_path / "c", *draws, "--seed", 2)
    assert other[1] != weighted[1]
    # Killed in the second epoch, the run resumes with the same clips.
    first = seen(tmp_path / "d", *draws, stop_at=(2, 2))
    again = seen(tmp_path / "d", *draws)
    assert first[1] == weighted[1] and again == {2: weighted[2]}


def test_too_many_draws_are_refused(seen, tmp_path):
    with pytest.raises(ManifestError, match="25") as error:
        seen(tmp_path, "--weighted_draws", 25)
    assert "\n" not in str(error.value)


@slow
def test_test_only(seen, run_recipe, audioset, parity_folder, tmp_path):
    run, tests = tmp_path / "run", tmp_path / "tests"
    seen(run, "--max_seconds", 2)

    def test(output, *options):
        options = ["--test_only", "--max_seconds", 2, *options]
        return run_recipe("AudioSet", "finetune_mini", audioset, output, *options)

    tested = test(tests, "--pretrained", run / "model")["test"]
    best = results(run)["best"]
    assert tested == pytest.approx({k: best[k] for k in ("loss", "mAP")}, rel=1e-5)
    ours, theirs = ((f / "class_ap.txt").read_text() for f in (run, tests))
    assert ours == theirs
    for path, error in (
        (parity_folder / "official_finetuned.pt", ExperimentError),
        (parity_folder / "official_pretrain.pt", CheckpointError),
        (tmp_path / "none", CheckpointError),
    ):
        with pytest.raises(error, match=re.escape(str(path))) as caught:
            test(tmp_path / "other", "--pretrained", path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ExperimentError, match="--test_only"):
        other = tmp_path / "another"
        run_recipe("AudioSet", "pretrain_mini", audioset, other, "--test_only")


@slow
def test_finetuning(finetuned):
    assert {path.name for path in finetuned.iterdir()} >= ALWAYS | {"class_ap.txt"}
    found = results(finetuned)
    assert 0 < found["best"]["mAP"] <= 1 and found["steps"] == 4
    table = read_class_ap(finetuned / "class_ap.txt")
    config = json.loads((finetuned / "model" / "config.json").read_text())
    assert list(table) == config["labels"] and set(table) == set(LABELS)
    classifier = eat.load_classifier(finetuned / "model")
    assert classifier(torch.zeros(1, 256, 128)).shape == (1, len(LABELS))


@slow
def test_finetuning_starts_from_the_pretrained_student(corpus, pretrained, tmp_path):
    still = ["--lr", "0", "--min_lr", "0"]  # it writes the weights it starts from
    model = pretrained / "model"
    succeed("finetune_mini", corpus, tmp_path / "a", "--pretrained", model, *still)
    succeed("finetune_mini", corpus, tmp_path / "b", "--pretrained", "none", *still)
    student = eat.load_encoder(model).state_dict()
    started = eat.load_classifier(tmp_path / "a" / "model").encoder.state_dict()
    scratch = eat.load_classifier(tmp_path / "b" / "model").encoder.state_dict()
    assert student.keys() == started.keys() == scratch.keys()
    assert all(torch.equal(student[key], started[key]) for key in student)
    weight = "blocks.0.attn.qkv.weight"
    assert not torch.equal(student[weight], scratch[weight])


@slow
def test_repeating_a_finished_command_changes_nothing(corpus, pretrained, finetuned):
    before = contents(pretrained), contents(finetuned)
    succeed("pretrain_mini", corpus, pretrained)
    model = pretrained / "model"
    succeed("finetune_mini", corpus, finetuned, "--pretrained", model)
    assert (contents(pretrained), contents(finetuned)) == before


@pytest.fixture
def refusal(run_recipe):
    """Start a run in this process, which must be refused; gives the reason."""

    def refuse(*arguments):
        with pytest.raises(EATError) as caught:
            run_recipe("AudioSet", *arguments)
        return str(caught.value)

    return refuse


@slow
def test_bad_folders(tmp_path, refusal):
    missing, empty, run = tmp_path / "missing", tmp_path / "empty", tmp_path / "run"
    empty.mkdir()
    assert str(missing) in refusal("pretrain_mini", missing, run)
    assert str(empty) in refusal("pretrain_mini", empty, run)


@slow
def test_bad_settings(corpus, pretrained, finetuned, tmp_path, refusal):
    none = ("--pretrained", "none")
    run = tmp_path / "run"
    error = complaint("finetune_mini", corpus, run, *none, "--layer_decai", "1")
    assert "layer_decai" in error and "layer_decay" in error
    assert "pretrained" in refusal("finetune_mini", corpus, run)
    absent = tmp_path / "absent.pt"
    assert str(absent) in refusal("finetune_mini", corpus, run, "--pretrained", absent)
    model = pretrained / "model"  # of width 128
    other = tmp_path / "other"
    error = refusal("finetune_as20k", corpus, other, "--pretrained", model)
    assert "num_classes 527" in error and "--num_classes 20" in error
    base = ("--num_classes", "20", "--pretrained", model)
    error = refusal("finetune_as20k", corpus, other, *base)
    assert str(model) in error and "128" in error and "768" in error
    error = complaint("finetune_mini", corpus, finetuned, *none)
    assert str(finetuned) in error and "pretrained was" in error
