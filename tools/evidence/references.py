"""What pre-training is compared with: statistics of the input, untrained networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from eat.audio.frontend import SAMPLE_RATE, LogMel, num_frames_of
from eat.evaluation.baselines import log_mel_statistics, mfcc_statistics
from eat.evaluation.linear_probe import linear_probe
from eat.evaluation.probing import knn_probe
from eat.experiment.config import load_config
from eat.model.encoder import EATEncoder
from eat.utils.versions import versions
from evidence.clips import BATCH, SUBSETS, LabeledClips
from evidence.corpus import SIZES
from evidence.measuring import (
    PROBES,
    FrozenFeatures,
    by_layer,
    probe_scores,
    summary,
)
from evidence.results import SCORES, save_scores, write_result
from evidence.studies import DEFAULT_YAML, RECIPES, JobFactory

FILE = "baselines.json"
SEEDS = (1, 2, 3, 4, 5)  # of untrained networks
UNTRAINED = "untrained network"
CHANCE = "chance"

STATISTICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "log-mel statistics": log_mel_statistics,
    "MFCC statistics": mfcc_statistics,
}


def baseline_folder(factory: JobFactory, name: str, seed: int) -> Path:
    """Return the folder of a baseline's scores; statistics have one for all seeds."""
    suffix = f"-seed{seed}" if name == UNTRAINED else ""
    return factory.output / "baselines" / f"{name.replace(' ', '_')}{suffix}"


def write_baselines(factory: JobFactory, results: Path) -> None:
    """Probe the baselines unless that is done; write ``baselines.json``."""
    places = [(name, SEEDS[0]) for name in STATISTICS]
    places += [(UNTRAINED, seed) for seed in SEEDS]
    scores = [baseline_folder(factory, *place) / SCORES for place in places]
    if all(path.exists() for path in (results / FILE, *scores)):
        return
    clips = LabeledClips(factory.manifests, factory.corpus, factory.labeled_clips)
    # A score that is the same for all clips: its precision is the share of positives.
    chance = clips.labels[SUBSETS[1]].float().mean().item()
    found: dict[str, object] = {CHANCE: {"linear": chance, "knn": chance}}
    found |= {name: _statistics(factory, name, clips) for name in STATISTICS}
    found[UNTRAINED] = [_untrained(factory, seed, clips) for seed in SEEDS]
    command = "python tools/paper_tables/evidence.py"
    write_result(
        results / FILE, {"command": command, "versions": versions(), "scores": found}
    )


def _statistics(
    factory: JobFactory, name: str, clips: LabeledClips
) -> dict[str, float]:
    """Probe statistics of the log-mel spectrograms."""
    frames = num_frames_of(round(SIZES.seconds * SAMPLE_RATE))
    values = {}
    for subset in SUBSETS:
        parts = [
            STATISTICS[name](spec, torch.full((len(spec),), frames))
            for spec in clips.spectrograms[subset].split(BATCH)
        ]
        values[subset] = torch.cat(parts)
    (train, test), labels = (values[subset] for subset in SUBSETS), clips.labels
    both = train, labels[SUBSETS[0]], test, labels[SUBSETS[1]]
    linear = linear_probe(*both)
    # Statistics have neither CLS token nor patches: one vector for each of the probes.
    folder = _made(baseline_folder(factory, name, SEEDS[0]))
    save_scores(folder, dict.fromkeys(PROBES, linear.scores))
    return {"linear": linear.value, "knn": knn_probe(*both).value}


def _untrained(factory: JobFactory, seed: int, clips: LabeledClips) -> dict:
    """Probe the network of the default with its initial weights."""
    encoder, frontend = untrained(seed)
    features = FrozenFeatures.compute(encoder, frontend, clips)
    folder = _made(baseline_folder(factory, UNTRAINED, seed))
    save_scores(folder, probe_scores(features))
    return {"seed": seed, **summary(features), "layers": by_layer(features)}


def untrained(seed: int) -> tuple[EATEncoder, LogMel]:
    """Return the encoder of the default with initial weights, and its front end."""
    path = RECIPES / "AudioSet" / "hparams" / DEFAULT_YAML
    config = load_config(path, {"data_folder": "none", "output_folder": "none"})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hparams = config.instantiate()
    return hparams["encoder"].eval(), hparams["frontend"]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
