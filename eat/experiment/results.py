"""``results.json``: what a finished run reached, and with what it was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eat.experiment.config import plain_settings
from eat.utils.files import write_json
from eat.utils.versions import versions


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
    write_json(path, record)


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
