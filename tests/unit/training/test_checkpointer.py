"""Checkpoints are written and deleted atomically, and verified when loaded."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from eat.errors import CorruptCheckpointError, ExperimentError
from eat.training import checkpointer as checkpointing
from eat.training.checkpointer import AtomicCheckpointer
from eat.utils.files import sha256_file, write_json


class Bomb:
    """A recoverable, the last to be saved, that may interrupt saving."""

    def __init__(self):
        self.explode = None

    def save(self, path):
        Path(path).write_text("partly written")
        if self.explode:
            self.explode()

    def load(self, path, end_of_epoch):
        assert Path(path).read_text() == "partly written"


@pytest.fixture
def bomb():
    return Bomb()


@pytest.fixture
def model():
    return nn.Linear(1, 1, bias=False)


@pytest.fixture
def checkpointer(tmp_path, model, bomb):
    checkpointer = AtomicCheckpointer(tmp_path / "save", {"model": model})
    checkpointer.add_recoverable("zzz", bomb, Bomb.load, Bomb.save)
    return checkpointer


def set_weight(model, value):
    with torch.no_grad():
        model.weight.fill_(value)


def raise_interrupt():
    raise KeyboardInterrupt


def partials(checkpointer):
    return list(checkpointer.checkpoints_dir.glob(".partial-*"))


def test_saved_checkpoint_is_found_and_loads(checkpointer, model):
    set_weight(model, 1.0)
    saved = checkpointer.save_checkpoint(meta={"mAP": 0.5}, name="first")
    assert saved.path.name == "CKPT+first"
    assert all(path.is_file() for path in saved.paramfiles.values())
    assert not partials(checkpointer)
    set_weight(model, 9.0)
    found = checkpointer.recover_if_possible()
    assert found.path == saved.path and found.meta["mAP"] == 0.5
    assert model.weight.item() == 1.0


def test_interrupted_save_leaves_the_previous_checkpoint(checkpointer, model, bomb):
    set_weight(model, 1.0)
    complete = checkpointer.save_checkpoint()
    set_weight(model, 2.0)
    bomb.explode = raise_interrupt
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save_checkpoint()
    assert len(partials(checkpointer)) == 1
    assert [c.path for c in checkpointer.list_checkpoints()] == [complete.path]
    assert checkpointer.recover_if_possible().path == complete.path
    assert model.weight.item() == 1.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_process_leaves_the_previous_checkpoint(checkpointer, model, bomb):
    complete = checkpointer.save_checkpoint()
    child = os.fork()
    if not child:  # killed while it saves: no handler runs, nothing is flushed
        bomb.explode = lambda: os._exit(9)
        checkpointer.save_checkpoint()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(partials(checkpointer)) == 1
    assert checkpointer.recover_if_possible().path == complete.path


def test_next_start_removes_partial_folders(checkpointer, model, bomb):
    """Even if it finds the run complete and saves no more."""
    checkpointer.save_checkpoint()
    bomb.explode = raise_interrupt
    set_weight(model, 3.0)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save_checkpoint()
    [leftover] = partials(checkpointer)
    leftover.rename(leftover.with_name(".partial-CKPT+yesterday"))
    checkpointer.recover_if_possible()
    assert not partials(checkpointer) and model.weight.item() != 3.0


def test_best_and_newest_are_kept(checkpointer):
    for score in (0.1, 0.9, 0.3, 0.2):
        checkpointer.save_checkpoint(meta={"mAP": score})
        checkpointer.delete_epochs(num_to_keep=1, every=0, best="mAP")
    kept = sorted(c.meta["mAP"] for c in checkpointer.list_checkpoints())
    assert kept == [0.2, 0.9]
    assert checkpointer.find_checkpoint(max_key="mAP").meta["mAP"] == 0.9
    assert checkpointer.find_checkpoint().meta["mAP"] == 0.2


def test_newest_of_equally_good_checkpoints_is_the_best(checkpointer, monkeypatch):
    saved = [checkpointer.save_checkpoint({"mAP": 0.5}) for _ in range(3)]
    folders = [saved[number].path for number in (1, 2, 0)]  # a disk has any order
    monkeypatch.setattr(checkpointer, "_list_checkpoint_dirs", lambda: folders)
    assert checkpointer.find_checkpoint(max_key="mAP").path == saved[-1].path
    checkpointer.delete_epochs(1, every=0, best="mAP")
    assert [path.exists() for path in sorted(folders)] == [False, False, True]


def test_checkpoints_within_an_epoch_are_deleted_apart(checkpointer):
    checkpointer.save_checkpoint(meta={"epoch": 1})
    for _ in range(3):
        checkpointer.save_checkpoint(end_of_epoch=False)
    checkpointer.delete_within_epoch(num_to_keep=1)
    kept = [c.meta["end-of-epoch"] for c in checkpointer.list_checkpoints()]
    assert sorted(kept) == [False, True]


def test_min_keys_and_functions_rank_as_well(checkpointer):
    for score in (3, 1, 2):
        checkpointer.save_checkpoint(meta={"score": score})
    checkpointer.delete_checkpoints(
        min_keys=["score"],
        importance_keys=[lambda checkpoint: -abs(checkpoint.meta["score"] - 2)],
    )
    kept = sorted(c.meta["score"] for c in checkpointer.list_checkpoints())
    assert kept == [1, 2]


def test_names_within_a_second_differ(checkpointer, monkeypatch):
    monkeypatch.setattr(checkpointing.time, "strftime", lambda _: "now")
    for _ in range(3):
        checkpointer.save_checkpoint()
    names = sorted(c.path.name for c in checkpointer.list_checkpoints())
    assert names == ["CKPT+now+00", "CKPT+now+01", "CKPT+now+02"]


@pytest.mark.parametrize(
    ("batches", "minutes", "due"),
    [(0, 0, False), (3, 0, True), (4, 0, False), (0, 0.9, True), (0, 1.1, False)],
)
def test_interval_between_checkpoints(monkeypatch, batches, minutes, due):
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: 1000.0)
    interval = checkpointing.CheckpointInterval(batches, minutes)
    interval.batches += 3
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: 1060.0)
    # Somebody sets the clock back by a day.
    monkeypatch.setattr(checkpointing.time, "time", lambda: 1060.0 - 86400)
    assert interval.is_over() == due
    interval.start()
    assert not interval.is_over()


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2])


def empty(path):
    path.write_bytes(b"")


def test_altered_time_is_refused(checkpointer):
    """The newest checkpoint would be taken for an older one."""
    checkpointer.save_checkpoint(name="1")
    newest = checkpointer.save_checkpoint(name="2")
    meta = newest.path / "CKPT.yaml"
    meta.write_text(re.sub("unixtime: .", "unixtime: 0", meta.read_text()))
    with pytest.raises(CorruptCheckpointError, match=re.escape(str(meta))):
        checkpointer.recover_if_possible()


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, empty, Path.unlink])
@pytest.mark.parametrize("name", ["model.ckpt", "CKPT.yaml", "SHA256.json"])
def test_altered_checkpoint_is_refused(checkpointer, model, damage, name):
    set_weight(model, 1.0)
    checkpointer.save_checkpoint(meta={"epoch": 1}, name="1")
    set_weight(model, 2.0)
    newest = checkpointer.save_checkpoint(meta={"epoch": 2}, name="2")
    damage(newest.path / name)
    try:
        with pytest.raises(CorruptCheckpointError, match=re.escape(str(newest.path))):
            checkpointer.recover_if_possible()
        shutil.rmtree(newest.path)
    finally:
        set_weight(model, 9.0)
    assert checkpointer.recover_if_possible().meta["epoch"] == 1
    assert model.weight.item() == 1.0


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("name", ["CKPT.yaml", "SHA256.json", "model.ckpt", ""])
def test_unreadable_is_not_called_altered(checkpointer, monkeypatch, number, name):
    saved = checkpointer.save_checkpoint()
    unreadable = saved.path / name if name else checkpointer.checkpoints_dir
    stat, scandir = os.stat, os.scandir

    def failing(function):
        def call(path, *args, **options):
            if Path(path) == unreadable:
                raise OSError(number, os.strerror(number), str(path))
            return function(path, *args, **options)

        return call

    monkeypatch.setattr(os, "stat", failing(stat))
    monkeypatch.setattr(os, "scandir", failing(scandir))
    with pytest.raises(ExperimentError, match=os.strerror(number)) as error:
        checkpointer.recover_if_possible()
    assert str(unreadable) in str(error.value)


def listed_outside(saved):
    """A checksum of a file out of the folder."""
    (saved.path.parent / "other").write_text("")
    checksums = json.loads((saved.path / "SHA256.json").read_text())
    checksums["../other"] = sha256_file(saved.path.parent / "other")
    write_json(saved.path / "SHA256.json", checksums)


def unlisted(saved):
    (saved.path / "more.ckpt").write_text("")


def pipe(saved):
    (saved.path / "model.ckpt").unlink()
    os.mkfifo(saved.path / "model.ckpt")


def pipe_for_meta(saved):
    (saved.path / "CKPT.yaml").unlink()
    os.mkfifo(saved.path / "CKPT.yaml")


def pipe_for_checksums(saved):
    (saved.path / "SHA256.json").unlink()
    os.mkfifo(saved.path / "SHA256.json")


def code(saved):
    path = saved.path / "CKPT.yaml"
    path.write_text(f"!!python/object/apply:os.mkdir [{saved.path.parent}/evil]")


def nested(saved):
    (saved.path / "SHA256.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    "forge",
    [listed_outside, unlisted, pipe, pipe_for_meta, pipe_for_checksums, code, nested],
)
def test_forged_checkpoint_is_refused(checkpointer, forge):
    saved = checkpointer.save_checkpoint(name="1")
    forge(saved)
    with pytest.raises(CorruptCheckpointError, match=re.escape(str(saved.path))):
        checkpointer.recover_if_possible()
    assert not (saved.path.parent / "evil").exists()


def test_links_in_place_of_folders_are_not_followed(checkpointer, tmp_path):
    """Neither when writing nor when deleting."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("keep this")
    first = checkpointer.save_checkpoint(name="1")
    (first.path.parent / ".partial-save").symlink_to(outside)
    first.path.rename(tmp_path / "archive")
    first.path.symlink_to(tmp_path / "archive")
    assert checkpointer.recover_if_possible().path == first.path  # reading is fine
    checkpointer.save_checkpoint(name="2")
    checkpointer.delete_checkpoints(num_to_keep=1)
    assert [x.path.name for x in checkpointer.list_checkpoints()] == ["CKPT+2"]
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (tmp_path / "archive" / "model.ckpt").is_file()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        RuntimeError("PytorchStreamWriter failed writing file\nwith more lines"),
    ],
)
def test_failed_write_leaves_the_previous_checkpoint(checkpointer, model, bomb, error):
    set_weight(model, 1.0)
    earlier = checkpointer.save_checkpoint(name="1")

    def fail():
        raise error

    bomb.explode = fail
    set_weight(model, 2.0)
    with pytest.raises(CorruptCheckpointError) as failure:
        checkpointer.save_checkpoint(name="2")
    assert str(earlier.path) in str(failure.value)
    assert "\n" not in str(failure.value) and not partials(checkpointer)
    assert checkpointer.recover_if_possible().path == earlier.path
    assert model.weight.item() == 1.0


def test_failure_of_the_first_write(checkpointer, bomb):
    def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    bomb.explode = fail
    with pytest.raises(CorruptCheckpointError, match="No space left on device"):
        checkpointer.save_checkpoint()


def test_newest_is_the_last_written_whatever_the_clock(checkpointer, monkeypatch):
    """Another machine's clock may be ahead."""
    clock = iter([1000.0, 400.0, 700.0])
    for epoch in (1, 2, 3):
        now = next(clock)
        monkeypatch.setattr(checkpointing.time, "time", lambda now=now: now)
        checkpointer.save_checkpoint(meta={"epoch": epoch})
        assert checkpointer.find_checkpoint().meta["epoch"] == epoch


def test_files_are_synced_to_disk_before_the_rename(checkpointer, monkeypatch):
    """Without it a power failure may leave a name without content."""
    done = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: done.append(os.readlink(f"/proc/self/fd/{fd}"))
    )
    rename = os.rename

    def watched(source, target):
        done.append("renamed")
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    saved = checkpointer.save_checkpoint(name="1")
    before = {Path(name).name for name in done[: done.index("renamed")]}
    assert before == {path.name for path in saved.path.iterdir()} | {"CKPT+1"}
    assert done[-1] == str(checkpointer.checkpoints_dir)


def test_kill_during_a_deletion_leaves_no_partial_checkpoint(checkpointer, monkeypatch):
    checkpointer.save_checkpoint(name="1")

    def killed(path, *_):
        next(Path(path).iterdir()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpointer.delete_checkpoints(num_to_keep=0)
    assert checkpointer.list_checkpoints() == [] and len(partials(checkpointer)) == 1
    checkpointer.save_checkpoint(name="2")
    assert not partials(checkpointer)


def test_all_ranks_load_what_the_main_process_chooses(checkpointer, model, monkeypatch):
    """On a network file system their own lists may be outdated."""
    for value in (1.0, 2.0, 3.0):
        set_weight(model, value)
        checkpointer.save_checkpoint(name=f"{value:g}")
    [second] = [c for c in checkpointer.list_checkpoints() if c.path.name == "CKPT+2"]
    monkeypatch.setattr(checkpointing, "all_gather_objects", lambda own: [second])
    monkeypatch.setattr(checkpointing, "if_main_process", lambda: False)
    assert checkpointer.recover_if_possible().path.name == "CKPT+2"
    assert model.weight.item() == 2.0
    checkpointer.delete_checkpoints(num_to_keep=1)  # done by the main process only
    assert len(checkpointer.list_checkpoints()) == 3


def test_files_of_another_machine_are_waited_for(checkpointer, model, monkeypatch):
    set_weight(model, 1.0)
    saved = checkpointer.save_checkpoint(name="1")
    hidden = saved.path.with_name("elsewhere")
    saved.path.rename(hidden)
    monkeypatch.setattr(checkpointing, "world_size", lambda: 2)
    monkeypatch.setattr(
        checkpointing.time, "sleep", lambda _: hidden.rename(saved.path)
    )
    set_weight(model, 9.0)
    checkpointer.load_checkpoint(saved)
    assert model.weight.item() == 1.0
