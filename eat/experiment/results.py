"""``results.json``: the results of a finished run and what they were made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eat.experiment.config import read_scalar_settings
from eat.utils.files import write_json
from eat.utils.versions import versions

RESULTS = "results.json"


def write_results(output_folder: str | Path, **results: Any) -> None:
    """Write the results with the settings and software versions that produced them.

    The settings are those of the folder's ``hyperparams.yaml``. If they name a
    ``manifest_folder``, ``data`` holds the number of clips used, by subset.
    """
    settings = read_scalar_settings(output_folder)
    record = {
        **results,
        "settings": settings,
        "data": _clip_counts(settings.get("manifest_folder")),
        "versions": versions(),
    }
    write_json(Path(output_folder) / RESULTS, record, sync=True)


def has_results(output_folder: str | Path) -> bool:
    """Return whether a run has written its results; a damaged file counts as none."""
    try:
        results = (Path(output_folder) / RESULTS).read_text(encoding="utf-8")
        return isinstance(json.loads(results), dict)
    except (FileNotFoundError, ValueError, RecursionError):
        return False


def _clip_counts(manifest_folder: str | None) -> dict[str, dict] | None:
    """Return the clips used, and those the paper used, from a corpus's summary."""
    path = Path(manifest_folder or "") / "summary.json"
    if manifest_folder is None or not path.is_file():
        return None
    subsets = json.loads(path.read_text(encoding="utf-8"))["subsets"]
    return {
        name: {key: counts[key] for key in ("used", "used_in_paper")}
        for name, counts in subsets.items()
    }
