"""A run starts as requested, or one line says why it cannot."""

import errno
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import speechbrain as sb
import torch
import yaml

from eat.errors import exit_on_error
from eat.experiment.folder import start_experiment

YAML = """\
# A small recipe.
seed: 1
data_folder: !PLACEHOLDER
output_folder: !PLACEHOLDER
manifest_folder: !ref <output_folder>/manifests
lr: 0.5
steps: 10
warmup_steps: !ref <steps> // 5
block: !tuple (5, 5)
model: !new:torch.nn.Linear
    in_features: 2
    out_features: 2
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
    checkpoints_dir: !ref <output_folder>/save
    recoverables:
        model: !ref <model>
monitor: !new:eat.evaluation.collapse.CollapseMonitor
    warn_std: 0.1
    warn_between_clip_variance: 0.1
    grace_steps: !ref <warmup_steps>
precision: bf16
max_grad_norm: 4.0
grad_accumulation_factor: 3
"""


@pytest.fixture(autouse=True)
def restored_logging(monkeypatch):
    """Undo what SpeechBrain does to exceptions, logging and seeds; do not run pip."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sb.utils.logger, "get_environment_description", str)
    monkeypatch.setenv("SB_GLOBAL_SEED", "0")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers, root.level = handlers, level


@pytest.fixture
def start(tmp_path):
    """Start the small recipe with more arguments."""
    path = tmp_path / "recipe.yaml"
    path.write_text(YAML)

    def run(*arguments, folder=tmp_path / "run", data=("--data_folder", "DATA")):
        arguments = [*data, "--output_folder", str(folder), *map(str, arguments)]
        started = start_experiment([str(run.path), "--device", "cpu", *arguments])
        Path(folder, "metrics.jsonl").touch()  # as the first log line does
        return started

    run.path = path
    return run


def refusal(call, *arguments, **options):
    """Return the one line with which a start is refused."""
    with pytest.raises(SystemExit) as caught, exit_on_error():
        call(*arguments, **options)
    message = str(caught.value)
    assert message.startswith("error: ") and "\n" not in message
    return message.removeprefix("error: ")


def test_start_that_failed_does_not_bind_the_next(start, tmp_path):
    start("--lr", "5e-4")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    hparams, _ = start("--lr", "1e-3")
    assert hparams["lr"] == 1e-3


@pytest.mark.parametrize("content", [b"lr: \x80", b"lr: [1", b"\0"])
def test_damaged_record_of_the_settings_is_replaced(start, tmp_path, capsys, content):
    start()
    path = tmp_path / "run" / "hyperparams.yaml"
    before = path.read_bytes()
    path.write_bytes(content)
    start()
    assert path.read_bytes() == before and f"{path}: " in capsys.readouterr().out


def test_settings_are_instantiated_and_recorded(start, tmp_path):
    hparams, run_opts = start("--lr", "5e-4")
    assert hparams["lr"] == 5e-4 and hparams["warmup_steps"] == 2
    assert isinstance(hparams["model"], torch.nn.Linear)
    assert run_opts["device"] == "cpu"
    for name in ("hyperparams.yaml", "env.log", "log.txt"):
        assert (tmp_path / "run" / name).is_file()
    recorded = (tmp_path / "run" / "hyperparams.yaml").read_text()
    assert "lr: 5e-4" in recorded or "lr: 0.0005" in recorded


def test_seed_decides_the_weights(start, tmp_path):
    weights = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)  # what came before has no part in it
        hparams, _ = start("--seed", seed, folder=tmp_path / f"run{number}")
        weights.append(hparams["model"].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_bad_settings_leave_no_folder(start, tmp_path):
    for option in ("--warmup_step", "--steps"):
        message = refusal(start, option, "abc")
        assert message.startswith(f"{start.path}: ") and option[2:] in message
    assert not (tmp_path / "run").exists()


def test_missing_data_folder(start):
    assert "--data_folder" in refusal(start, data=())


def test_output_folder_that_is_a_file(start, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        message = refusal(start, folder=folder)
        assert message.startswith(f"{folder}: ") and "--output_folder" in message


def test_read_only_output_folder(start, monkeypatch):
    def refuse(path, **_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "touch", refuse)  # root, too, may run these tests
    assert "Read-only file system" in refusal(start)


def test_same_command_is_accepted_again(start):
    first, _ = start("--lr", 0.25)
    again, _ = start("--lr", 0.25)
    assert again["lr"] == first["lr"]


def test_tuples_are_compared_with_and_without_their_tag(start, tmp_path):
    # HyperPyYAML drops the tag once it has loaded a file in this process.
    start()
    record = tmp_path / "run" / "hyperparams.yaml"
    assert "block: (5, 5)" in record.read_text()
    record.write_text(record.read_text().replace("(5, 5)", "!tuple (5, 5)"))
    start()


def test_no_overrides_at_all(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"seed: 1\noutput_folder: {tmp_path / 'run'}\n")
    hparams, _ = start_experiment([str(path)])
    assert hparams["seed"] == 1


def test_other_settings_are_refused_with_both_values(start, tmp_path):
    start()
    before = (tmp_path / "run" / "hyperparams.yaml").read_text()
    message = refusal(start, "--lr", 0.25)
    assert message.startswith(f"{tmp_path / 'run'}: ")
    assert "(lr was 0.5, now 0.25;" in message and "--output_folder" in message
    assert (tmp_path / "run" / "hyperparams.yaml").read_text() == before


def test_difference_names_plain_settings_not_what_they_build(start):
    start()
    message = refusal(start, "--steps", 20)
    assert "(steps was 10, now 20, warmup_steps was 2, now 4;" in message


def test_difference_within_an_object_is_seen(start):
    start()
    start.path.write_text(YAML.replace("out_features: 2", "out_features: 3"))
    assert "model was" in refusal(start)
    start.path.write_text(YAML.replace("(5, 5)", "(5, 6)"))
    assert "block was (5, 5), now (5, 6)" in refusal(start)


def test_added_setting_is_seen(start):
    start()
    start.path.write_text(YAML + "roll: True\n")
    assert "roll was None, now True" in refusal(start)


def test_data_may_move_and_workers_change(start):
    start.path.write_text(YAML + "num_workers: 0\nlog_interval: 5\n")
    start()
    moved = ("--data_folder", "ELSEWHERE")
    hparams, _ = start("--num_workers", 4, "--log_interval", 9, data=moved)
    assert hparams["num_workers"] == 4


@pytest.mark.parametrize("spelling", ["{}/run/", "{}/./run", "{}/x/../run"])
def test_folder_may_be_spelled_differently(start, tmp_path, spelling):
    start()
    (tmp_path / "x").mkdir()
    start(folder=spelling.format(tmp_path))
    assert "(lr was" in refusal(start, "--lr", 1, folder=spelling.format(tmp_path))


def test_run_may_move(start, tmp_path):
    start()
    (tmp_path / "run").rename(tmp_path / "moved")
    hparams, _ = start(folder=tmp_path / "moved")
    assert hparams["manifest_folder"] == f"{tmp_path}/moved/manifests"


def brain_of(hparams, run_opts):
    return sb.Brain(hparams=hparams, run_opts=run_opts)


def test_brain_settings_of_the_yaml_survive(start):
    brain = brain_of(*start())
    assert brain.precision == "bf16"
    assert brain.max_grad_norm == 4.0
    assert brain.grad_accumulation_factor == 3


def test_command_line_wins_and_is_recorded(start, tmp_path):
    options = ("--precision", "fp32", "--max_grad_norm=2", "--lr", "0.25")
    brain = brain_of(*start(*options))
    assert brain.precision == "fp32" and brain.hparams.precision == "fp32"
    assert brain.max_grad_norm == 2.0
    assert brain.grad_accumulation_factor == 3
    recorded = (tmp_path / "run" / "hyperparams.yaml").read_text().splitlines()
    plain = yaml.safe_load("\n".join(x for x in recorded if x[:4] in ("prec", "max_")))
    assert plain == {"precision": "fp32", "max_grad_norm": 2.0}
    start(*options)
    assert "precision was fp32, now bf16" in refusal(start, *options[2:])


# -- what is in the folder already -----------------------------------------------------


@pytest.fixture
def ordinary_user():
    """Permissions hold: also if the tests are run by root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield
    if is_root:
        os.seteuid(0)


@pytest.fixture
def shared(start):
    """A folder that all users may enter, with the folder of a run."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    run = folder / "run"
    run.mkdir()
    run.chmod(0o777)
    start.path = folder / "recipe.yaml"
    start.path.write_text(YAML)
    yield run
    shutil.rmtree(folder)


FILES = [
    ".lock", "metrics.jsonl", "train_log.txt", "skipped.jsonl", "log.txt",
    "progress.json", "hyperparams.yaml", "results.json", "env.log",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_links_in_place_of_files_are_not_followed(start, tmp_path, name):
    start()
    precious = tmp_path / "precious"
    precious.write_text("keep this")
    (tmp_path / "run" / name).unlink(missing_ok=True)
    (tmp_path / "run" / name).symlink_to(precious)
    assert str(tmp_path / "run" / name) in refusal(start)
    assert precious.read_text() == "keep this"


@pytest.mark.parametrize("name", FILES)
def test_pipes_in_place_of_files_are_not_waited_for(start, tmp_path, name):
    start()
    (tmp_path / "run" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "run" / name)
    assert str(tmp_path / "run" / name) in refusal(start)


@pytest.mark.parametrize("name", ["folder.py", "recipe.py"])
def test_links_in_place_of_what_is_rewritten_are_replaced(
    start, tmp_path, monkeypatch, name
):
    precious = tmp_path / "precious"
    precious.write_text("keep this")
    (tmp_path / "recipe.py").write_text("the script")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "recipe.py")])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(precious)
    start()
    assert precious.read_text() == "keep this"
    assert (tmp_path / "run" / "recipe.py").read_text() == "the script"
    assert not (tmp_path / "run" / "folder.py").exists()


@pytest.mark.parametrize("name", ["run", "run/save", "run/model"])
def test_folders_may_be_links_to_another_disk(start, tmp_path, name):
    (tmp_path / "disk").mkdir()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(tmp_path / "disk")
    start()
    start()


@pytest.mark.parametrize("name", ["save", "model", "models"])
def test_what_is_no_folder_any_more_is_named(start, tmp_path, name):
    start()
    path = tmp_path / "run" / name
    if path.exists():
        path.rmdir()
    path.write_text("")
    assert refusal(start).startswith(f"{path}: ")
    path.unlink()
    path.symlink_to(tmp_path / "unmounted")
    message = refusal(start)
    assert message.startswith(f"{path}: ") and "link" in message


def test_temporary_files_of_a_killed_start_are_removed(start, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    suffix = f"{socket.gethostname()}-{dead.pid}.tmp"
    run = tmp_path / "run"
    left = [run / f".results.json.{suffix}", run / "model" / f".config.json.{suffix}"]
    left.append(run / "models" / "epoch1" / f".model.safetensors.{suffix}")
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    start()
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("name", ["log.txt", "metrics.jsonl", "train_log.txt", "save"])
def test_what_a_colleague_may_not_write_is_named(start, shared, ordinary_user, name):
    (shared / "save").mkdir(exist_ok=True)
    if name != "save":
        (shared / name).touch()
    (shared / name).chmod(0o555 if name == "save" else 0o444)
    message = refusal(start, folder=shared)
    assert message.startswith(f"{shared / name}: ") and "--output_folder" in message


def test_lock_that_a_colleague_may_not_write(start, shared, ordinary_user):
    (shared / ".lock").touch()
    (shared / ".lock").chmod(0o444)
    assert refusal(start, folder=shared).startswith(f"{shared / '.lock'}: ")


def test_script_of_a_colleague_is_replaced(start, shared, ordinary_user, monkeypatch):
    script = shared / Path(__file__).name
    script.write_text("older")
    script.chmod(0o444)
    monkeypatch.setattr(sys, "argv", ["/dev/null"])
    start(folder=shared)
    (shared / "env.log").chmod(0o444)
    start(folder=shared)
