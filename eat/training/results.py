"""``results.json``: what a finished run reached, and with what it was made."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import eat

PACKAGES = ("torch", "torchaudio", "speechbrain")


def write_results(output_folder: str | Path, **results: Any) -> None:
    """Write the results with the versions that made them, atomically."""
    record = {**results, "versions": versions()}
    path = Path(output_folder) / "results.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def versions() -> dict[str, str | None]:
    """Versions of this package and its main dependencies, and the git revision."""
    found = {name: version(name) for name in PACKAGES}
    return {"eat": eat.__version__, "git": _git_revision(), **found}


def _git_revision() -> str | None:
    folder = Path(eat.__file__).parent
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True
        )
    except OSError:  # no git on this machine
        return None
    return answer.stdout.strip() or None
