"""A checkpoint is there whole or not at all."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from eat.errors import CorruptCheckpointError
from eat.training import checkpointer as checkpointing
from eat.training.checkpointer import AtomicCheckpointer


class Bomb:
    """A recoverable, the last to be saved, that can interrupt the save."""

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


def test_interrupted_save_leaves_the_previous_one_newest(checkpointer, model, bomb):
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
def test_killed_process_leaves_the_previous_one_newest(checkpointer, model, bomb):
    complete = checkpointer.save_checkpoint()
    child = os.fork()
    if not child:  # killed while it saves: no handler runs, nothing is flushed
        bomb.explode = lambda: os._exit(9)
        checkpointer.save_checkpoint()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(partials(checkpointer)) == 1
    assert checkpointer.recover_if_possible().path == complete.path


def test_leftovers_vanish_with_the_next_save(checkpointer, model, bomb):
    bomb.explode = raise_interrupt
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save_checkpoint()
    bomb.explode = None
    [leftover] = partials(checkpointer)
    leftover.rename(leftover.with_name(".partial-CKPT+yesterday"))
    set_weight(model, 3.0)
    checkpointer.save_and_keep_only()
    assert not partials(checkpointer)
    set_weight(model, 0.0)
    checkpointer.recover_if_possible()
    assert model.weight.item() == 3.0


def test_best_and_newest_are_kept(checkpointer):
    for score in (0.1, 0.9, 0.3, 0.2):
        checkpointer.save_and_keep_only(meta={"mAP": score}, max_keys=["mAP"])
    kept = sorted(c.meta["mAP"] for c in checkpointer.list_checkpoints())
    assert kept == [0.2, 0.9]
    assert checkpointer.find_checkpoint(max_key="mAP").meta["mAP"] == 0.9
    assert checkpointer.find_checkpoint().meta["mAP"] == 0.2


def test_default_keys_do_not_grow(checkpointer, monkeypatch):
    counts = []
    delete = AtomicCheckpointer.delete_checkpoints

    def spy(self, **kwargs):
        counts.append(len(kwargs["importance_keys"]))
        delete(self, **kwargs)

    monkeypatch.setattr(AtomicCheckpointer, "delete_checkpoints", spy)
    for _ in range(3):
        checkpointer.save_and_keep_only()
    assert counts == [1, 1, 1]  # recency; SpeechBrain's own default gives 1, 2, 3
    assert len(checkpointer.list_checkpoints()) == 1


def test_given_keys_are_not_changed(checkpointer):
    keys = [lambda checkpoint: checkpoint.meta["score"]]
    for score in (3, 1, 2):
        checkpointer.save_and_keep_only(meta={"score": score}, importance_keys=keys)
    assert len(keys) == 1
    kept = sorted(c.meta["score"] for c in checkpointer.list_checkpoints())
    assert kept == [2, 3]


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, empty, Path.unlink])
@pytest.mark.parametrize("name", ["model.ckpt", "CKPT.yaml", "SHA256.json"])
def test_altered_checkpoint_is_refused(checkpointer, model, damage, name):
    set_weight(model, 1.0)
    checkpointer.save_checkpoint(meta={"epoch": 1}, name="1")
    set_weight(model, 2.0)
    newest = checkpointer.save_checkpoint(meta={"epoch": 2}, name="2")
    damage(newest.path / name)
    try:
        with pytest.raises(CorruptCheckpointError, match="altered.*remove .*CKPT"):
            checkpointer.recover_if_possible()
        shutil.rmtree(newest.path)  # the remedy
    finally:
        set_weight(model, 9.0)
    assert checkpointer.recover_if_possible().meta["epoch"] == 1
    assert model.weight.item() == 1.0


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        RuntimeError("PytorchStreamWriter failed writing file\nwith more lines"),
    ],
)
def test_failed_write_leaves_the_previous_one(checkpointer, model, bomb, error):
    set_weight(model, 1.0)
    earlier = checkpointer.save_checkpoint(name="1")

    def fail():
        raise error

    bomb.explode = fail
    set_weight(model, 2.0)
    with pytest.raises(CorruptCheckpointError) as told:
        checkpointer.save_checkpoint(name="2")
    assert f"{earlier.path} is complete" in str(told.value)
    assert "\n" not in str(told.value) and not partials(checkpointer)
    assert checkpointer.recover_if_possible().path == earlier.path
    assert model.weight.item() == 1.0


def test_first_write_that_fails_says_that_nothing_is_left(checkpointer, bomb):
    def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    bomb.explode = fail
    with pytest.raises(CorruptCheckpointError, match="there is none before it"):
        checkpointer.save_checkpoint()


def test_newest_is_the_last_written_whatever_the_clock(checkpointer, monkeypatch):
    """Another machine's clock may have been ahead."""
    clock = iter([1000.0, 400.0, 700.0])
    for epoch in (1, 2, 3):
        now = next(clock)
        monkeypatch.setattr(checkpointing.time, "time", lambda now=now: now)
        checkpointer.save_and_keep_only(meta={"epoch": epoch})
        assert checkpointer.find_checkpoint().meta["epoch"] == epoch


def test_checkpoint_is_on_the_disk_before_it_has_its_name(checkpointer, monkeypatch):
    """Or a machine that goes down leaves a name without content."""
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
    assert before == {path.name for path in saved.path.iterdir()} | {".partial-CKPT+1"}
    assert done[-1] == str(checkpointer.checkpoints_dir)


def test_kill_within_a_deletion_leaves_no_half_checkpoint(checkpointer, monkeypatch):
    checkpointer.save_checkpoint(name="1")

    def killed(path):
        next(Path(path).iterdir()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpointer.delete_checkpoints(num_to_keep=0)
    assert checkpointer.list_checkpoints() == [] and len(partials(checkpointer)) == 1
    checkpointer.save_checkpoint(name="2")
    assert not partials(checkpointer)


def test_a_process_goes_by_the_main_one_s_list(checkpointer, model, monkeypatch):
    """Its own may be older, or newer, on a network file system."""
    for value in (1.0, 2.0, 3.0):
        set_weight(model, value)
        checkpointer.save_checkpoint(name=f"{value:g}")
    [second] = [c for c in checkpointer.list_checkpoints() if c.path.name == "CKPT+2"]
    monkeypatch.setattr(checkpointing, "all_gather_objects", lambda mine: [second])
    monkeypatch.setattr(checkpointing, "if_main_process", lambda: False)
    assert checkpointer.recover_if_possible().path.name == "CKPT+2"
    assert model.weight.item() == 2.0
    checkpointer.delete_checkpoints(num_to_keep=1)  # is the main one's to do
    assert len(checkpointer.list_checkpoints()) == 3


def test_what_another_machine_has_written_is_waited_for(
    checkpointer, model, monkeypatch
):
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
