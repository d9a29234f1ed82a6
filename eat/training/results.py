"""``results.json``: what a finished run reached, and with what it was made."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import eat
from eat.training.settings import plain_settings

PACKAGES = ("torch", "torchaudio", "speechbrain")


def write_results(output_folder: str | Path, **results: Any) -> None:
    """Write the results, atomically, with the settings and versions that made them.

    The settings are those of the folder's ``hyperparams.yaml``; where they name a
    ``manifest_folder``, the counts of the clips at hand stand under ``data``.
    """
    settings = plain_settings(output_folder)
    record = {
        **results,
        "settings": settings,
        "data": _clips_at_hand(settings.get("manifest_folder")),
        "versions": versions(),
    }
    path = Path(output_folder) / "results.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _clips_at_hand(manifest_folder: str | None) -> dict[str, dict] | None:
    """Clips used, and those the paper used, by subset, from a corpus's summary."""
    path = Path(manifest_folder or "") / "summary.json"
    if manifest_folder is None or not path.is_file():
        return None
    subsets = json.loads(path.read_text(encoding="utf-8"))["subsets"]
    return {
        name: {key: counts[key] for key in ("used", "used_in_paper")}
        for name, counts in subsets.items()
    }


def versions() -> dict[str, str | None]:
    """Versions of this package and its main dependencies, and the git revision."""
    found = {name: version(name) for name in PACKAGES}
    return {"eat": eat.__version__, "git": _git_revision(), **found}


def _git_revision() -> str | None:
    """The commit, with ``+changes`` where the files differ from it."""
    commit = _git("rev-parse", "HEAD")
    changed = commit and _git("status", "--porcelain", "--untracked-files=no")
    return f"{commit}+changes" if changed else commit


def _git(*command: str) -> str | None:
    folder = Path(eat.__file__).parent
    try:
        answer = subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True
        )
    except OSError:  # no git on this machine
        return None
    return answer.stdout.strip() or None
