"""The Arrow file of a manifest: made once, and again when it is out of date."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eat.data import arrow_file as module
from eat.data import manifest_batches
from eat.data.compact_manifest import CompactManifest
from eat.data.manifest import ManifestRow, write_manifest
from eat.errors import ManifestError

ROOT = Path(__file__).parents[3]
CLIPS = 3000


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    """A manifest that counts as a large one."""
    monkeypatch.setattr(module, "MAPPED_BYTES", 10_000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return write(tmp_path / "data" / "m.csv")


def write(path, name="clip"):
    labels = (("x",), ("y", "x"), ())
    clips = [(f"{name}{i}", 1.0, f"{i}.wav", labels[i % 3]) for i in range(CLIPS)]
    write_manifest(path, (ManifestRow(*clip) for clip in clips))
    return path


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def content(manifest):
    return [*zip(manifest.ids, manifest.wavs, manifest.labels, strict=True)]


def test_the_file_is_made_once(manifest, monkeypatch):
    first = CompactManifest(manifest)
    assert len(first) == CLIPS and first.ids[2999] == "clip2999"
    assert files(manifest.parent) == ["m.csv", "m.csv.arrow"]
    monkeypatch.delattr(module, "plain_batches")
    assert content(CompactManifest(manifest)) == content(first)


def test_a_small_manifest_gets_no_file(tmp_path):
    assert len(CompactManifest(write(tmp_path / "m.csv"))) == CLIPS
    assert files(tmp_path) == ["m.csv"]


@pytest.mark.parametrize("change", ["size", "content", "time", "format"])
def test_an_outdated_file_is_made_again(manifest, monkeypatch, change):
    old, before = CompactManifest(manifest), manifest.stat()
    if change == "format":
        monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    elif change != "time":
        write(manifest, {"size": "longer", "content": "CLIP"}[change])
    times = before.st_atime_ns, before.st_mtime_ns + (change == "time")
    os.utime(manifest, ns=times)
    arrow = manifest.with_name("m.csv.arrow")
    number = arrow.stat().st_ino
    new = CompactManifest(manifest)
    assert arrow.stat().st_ino != number and len(new) == CLIPS
    assert (content(new) == content(old)) == (change in ("time", "format"))
    assert old.ids[0] == "clip0"  # still mapped


@pytest.mark.parametrize("damage", ["cut", "zeros", "empty", "no Arrow file"])
def test_a_damaged_file_is_made_again(manifest, damage):
    good = content(CompactManifest(manifest))
    arrow = manifest.with_name("m.csv.arrow")
    data = arrow.read_bytes()
    middle = len(data) // 2
    spoiled = {
        "cut": data[:middle],
        "zeros": data[: middle - 3000] + bytes(6000) + data[middle + 3000 :],
        "empty": b"",
        "no Arrow file": b"x" * len(data),
    }
    arrow.write_bytes(spoiled[damage])
    assert content(CompactManifest(manifest)) == good
    assert arrow.read_bytes() == data


def test_a_read_only_folder(manifest, monkeypatch):
    lock = module.wait_for_lock

    def refused(path):
        if path.parent == manifest.parent:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return lock(path)

    monkeypatch.setattr(module, "wait_for_lock", refused)
    cache = manifest.parents[1] / "cache" / "eat"
    assert len(CompactManifest(manifest)) == CLIPS
    assert files(manifest.parent) == ["m.csv"] and len(files(cache)) == 1
    monkeypatch.delattr(module, "plain_batches")
    assert len(CompactManifest(manifest)) == CLIPS


def test_a_full_disk(manifest, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_encode_labels", full)
    with pytest.raises(ManifestError, match=r"m\.csv\.arrow: .*disk space"):
        CompactManifest(manifest)
    assert files(manifest.parent) == ["m.csv"]


def test_an_invalid_manifest_leaves_nothing(manifest):
    with open(manifest, "a") as file:
        file.write("clip17,1,x.wav,x\n")
    with pytest.raises(ManifestError, match="'clip17'"):
        CompactManifest(manifest)
    assert files(manifest.parent) == ["m.csv"]


@pytest.mark.slow
def test_only_one_of_several_processes_makes_it(manifest, tmp_path):
    code = f"""
import logging, sys
from eat.data import arrow_file as module
from eat.data.compact_manifest import CompactManifest
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
module.MAPPED_BYTES = 0
sys.stdin.read()
print(len(CompactManifest({str(manifest)!r})), flush=True)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        process.stdin.close()
    output = [process.stdout.read() for process in processes]
    assert not any(process.wait() for process in processes)
    assert sum(text.count("made from") for text in output) == 1
    assert all(text.endswith(f"{CLIPS}\n") for text in output)
    assert files(manifest.parent) == ["m.csv", "m.csv.arrow"]


HEADER = "ID,duration,wav,labels"
PARTS = st.sampled_from(
    [*'",;\t\r\n \0\ufeffé#=1.', "\r\n", "a,1,w,x\n", ",", "ID", f"{HEADER}\n", "#N/A"]
)


@settings(max_examples=60)
@given(st.lists(PARTS, max_size=6), st.integers(0, 40), st.integers(0, 4))
def test_arrow_reads_a_file_as_the_reader_of_tables_or_not_at_all(
    tmp_path_factory, parts, place, cut
):
    text = f"{HEADER}\nb,1.0,$data_root/b.wav,x;y\r\nc,2,c d.wav,z\n"
    place += len(HEADER)
    path = tmp_path_factory.mktemp("plain") / "m.csv"
    text = text[:place] + "".join(parts) + text[place + cut :]
    path.write_bytes(text.encode())
    try:
        plain = [b for batch in manifest_batches.plain_batches(path) for b in batch]
    except (manifest_batches.Unusual, module.pa.ArrowInvalid):
        return
    table = [b for batch in manifest_batches.table_batches(path) for b in batch]
    strip = [label.strip() for label in plain[2].to_pylist()] if plain else []
    assert [c.to_pylist() for c in plain[:2]] == [c.to_pylist() for c in table[:2]]
    assert strip == (table[2].to_pylist() if table else [])


def test_a_written_manifest_is_plain(tmp_path):
    batches = manifest_batches.plain_batches(write(tmp_path / "m.csv"))
    assert sum(len(ids) for ids, *_ in batches) == CLIPS
