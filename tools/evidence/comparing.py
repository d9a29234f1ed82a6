"""Each row of the study against its reference: paired differences with intervals."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from eat.evaluation.bootstrap import DRAWS, paired_bootstrap
from eat.evaluation.metrics import mean_average_precision
from eat.utils.files import sha256_file
from eat.utils.versions import versions
from evidence.clips import SUBSETS, LabeledClips
from evidence.measuring import PROBES
from evidence.references import STATISTICS, UNTRAINED, baseline_folder
from evidence.results import SCORES, read_scores, write_result
from evidence.studies import JobFactory, Row, Study, read_studies

FILE = "comparisons.json"
WHAT = (
    "Linear probes of all layers, of CLS tokens and means of patches (linear) or of "
    "one of them: mAP of a row minus that of its reference, pre-trained with the same "
    "seeds; 95% interval of a bootstrap over seeds and evaluation clips. Computed from "
    "the scores of the clips in the folders of the runs, which are not committed; "
    "`scores` has their SHA-256."
)
# By seed, the result of each run of a row.
RowResults = dict[int, dict[str, Any]]


def read_rows(rows: Iterable[Row], folder: Path) -> dict[str, RowResults]:
    """Read the results in the order of the study, only of rows that have any."""
    found: dict[str, RowResults] = {}
    for row in rows:
        for path in sorted(folder.glob(f"{row.run_name(0)[:-1]}*.json")):
            result = json.loads(path.read_text(encoding="utf-8"))
            found.setdefault(row.name, {})[result["seed"]] = result
    return found


def pair_name(row: str, reference: str) -> str:
    """Return the name of a comparison in ``comparisons.json``."""
    return f"{row} - {reference}"


def read_comparisons(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the comparisons by :func:`pair_name`; none before the first run."""
    path = folder / FILE
    if not path.exists():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))["comparisons"]


def write_comparisons(factory: JobFactory, results: Path) -> None:
    """Compare the rows that have been run; write ``comparisons.json``.

    Those of the same scores are not repeated, and those of more seeds are kept, whose
    scores are on another machine.
    """
    clips = LabeledClips(factory.manifests, factory.corpus, factory.labeled_clips)
    targets = clips.labels[SUBSETS[1]]
    found = read_comparisons(results)
    for row, reference in tqdm(pairs(read_studies()), "comparing", disable=None):
        of_row, of_reference = (_score_files(factory, n) for n in (row, reference))
        seeds = sorted(of_row.keys() & of_reference.keys())
        ours, theirs = ([of[s] for s in seeds] for of in (of_row, of_reference))
        scores = {
            f"{path.parent.name}/{SCORES}": sha256_file(path)[:16]
            for path in (*ours, *theirs)
        }
        earlier = found.get(pair_name(row, reference), {"seeds": [], "scores": {}})
        if earlier["scores"] == scores or len(earlier["seeds"]) > len(seeds):
            continue
        found[pair_name(row, reference)] = {
            "seeds": seeds,
            **{probe: compare(ours, theirs, targets, probe) for probe in PROBES},
            "scores": scores,
        }
    head = {"what": WHAT, "draws": DRAWS, "versions": versions()}
    write_result(results / FILE, {**head, "comparisons": found})


def pairs(studies: dict[str, Study]) -> list[tuple[str, str]]:
    """Return row and reference of every comparison; the default against baselines."""
    found = [("default", name) for name in (*STATISTICS, UNTRAINED)]
    for study in studies.values():
        found += study.pairs
    return list(dict.fromkeys(found))


def _score_files(factory: JobFactory, name: str) -> dict[int, Path]:
    """Return the files with the scores of the evaluation clips, by seed."""
    found = {}
    for seed in range(1, 101):
        if name in (*STATISTICS, UNTRAINED):
            folder = baseline_folder(factory, name, seed)
        else:
            folder = factory.pretraining(Row(name, {}), seed).folder
        if (folder / SCORES).exists():
            found[seed] = folder / SCORES
    return found


def compare(
    files: list[Path], references: list[Path], targets: Tensor, probe: str
) -> dict:
    """Compare a probe's scores of runs and of their references, seed by seed."""
    row, reference = (
        torch.stack([read_scores(path.parent, probe) for path in paths])
        for paths in (files, references)
    )
    values = [
        [mean_average_precision(scores, targets) for scores in of]
        for of in (row, reference)
    ]
    difference, low, high = paired_bootstrap(row, reference, targets)
    above = sum(a > b for a, b in zip(*values, strict=True))
    return {
        "row": values[0],
        "reference": values[1],
        "difference": difference,
        "low": low,
        "high": high,
        "above": above,
    }
