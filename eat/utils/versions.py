"""Versions of the software that produced a result."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

from eat._version import __version__

PACKAGES = ("torch", "torchaudio", "speechbrain")


def versions() -> dict[str, str | None]:
    """Return the versions of this package, its main dependencies and the git commit."""
    found = {name: version(name) for name in PACKAGES}
    return {"eat": __version__, "git": _git_revision(), **found}


def _git_revision() -> str | None:
    """Return the commit, with ``+changes`` if the working tree differs from it."""
    commit = _git("rev-parse", "HEAD")
    changed = commit and _git("status", "--porcelain", "--untracked-files=no")
    return f"{commit}+changes" if changed else commit


def _git(*command: str) -> str | None:
    folder = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True
        )
    except OSError:  # git is not installed
        return None
    return answer.stdout.strip() or None
