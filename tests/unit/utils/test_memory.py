"""Free memory is that of the machine, or what a container's limit leaves."""

import psutil
import pytest

from eat.utils import memory


@pytest.mark.skipif(not memory.MEMINFO.exists(), reason="only Linux tells")
def test_it_is_what_psutil_says(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)  # no limit
    found = memory.available_memory()
    assert found == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_a_container_has_a_limit(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  8000000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available_memory() == 8_000_000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory() == 8_000_000 * 1024
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("4000000\n")
    (tmp_path / "memory.stat").write_text("anon 3000000\nfile 1000000\n")
    assert memory.available_memory() == 2_000_000
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    assert memory.available_memory() is None
