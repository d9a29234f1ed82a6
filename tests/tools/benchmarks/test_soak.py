"""The soak benchmark passes on our training, and fails on a program that leaks."""

import json
import subprocess
import sys

import pytest

from benchmarks import soak
from eat.errors import EATError

# A run with one worker process; it leaks what its arguments name, each at every step.
TOY = """
import json, subprocess, sys, tempfile, threading, time
run, *leaks = sys.argv[1:]
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
worker, kept = subprocess.Popen(sleep), []
with open(f"{run}/metrics.jsonl", "a") as log:
    for step in range(1, 1000):
        text = "x" * (100 * step if "logs" in leaks else 10)
        print(json.dumps({"step": step, "text": text}), file=log, flush=True)
        if "memory" in leaks:
            kept.append(b"x" * 2**22)
        if "files" in leaks:
            kept.append(open("/dev/null"))
        if "threads" in leaks:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        if "temporary" in leaks:
            tempfile.mkstemp()
        if "workers" in leaks:
            kept.append(subprocess.Popen(sleep))
        time.sleep(0.05)
"""
EXPECTED = {
    "memory": "main, memory MB",
    "files": "main, open files",
    "threads": "main, threads",
    "temporary": "temporary files",
    "logs": "log bytes per step",
    "workers": "data workers",
}


def outcome(tmp_path, monkeypatch, *leaks):
    monkeypatch.setattr(soak, "POLL_SECONDS", 0.1)
    run, temporary = tmp_path / "run", tmp_path / "tmp"
    run.mkdir()
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", TOY, str(run), *leaks], env={"TMPDIR": str(temporary)}
    )
    samples = soak.watch(process, run, temporary, 2.5)
    return soak.above_bounds({"training": "toy", "growth": list(soak.growth(samples))})


@pytest.mark.slow
def test_every_leak_is_found(tmp_path, monkeypatch):
    found = outcome(tmp_path, monkeypatch, *EXPECTED)
    for name in EXPECTED.values():
        assert any(name in line for line in found), (name, found)


@pytest.mark.slow
def test_what_does_not_grow_passes(tmp_path, monkeypatch):
    assert outcome(tmp_path, monkeypatch) == []


def test_too_short_a_look_is_an_error():
    with pytest.raises(EATError, match="--minutes"):
        list(soak.growth([dict.fromkeys(soak.BOUNDS, 1.0)] * 4))
    with pytest.raises(EATError, match="threads"):
        names = [name for name in soak.BOUNDS if name != "main, threads"]
        list(soak.growth([dict.fromkeys(names, 1.0)] * 60))


@pytest.mark.slow
def test_a_short_run_of_ours(tmp_path, capsys, monkeypatch):
    for role in ("main", "worker"):  # a process still grows in its first seconds
        monkeypatch.setitem(soak.BOUNDS, f"{role}, memory MB", 400.0)
    soak.main(["--minutes", "0.3", "--json", str(tmp_path / "soak.json")])
    outcomes = json.loads((tmp_path / "soak.json").read_text())
    assert [found["training"] for found in outcomes] == ["pre-training", "fine-tuning"]
    for found in outcomes:
        assert found["steps"] > 5 and len(found["growth"]) == len(soak.BOUNDS)
    assert "main, memory MB" in capsys.readouterr().out
