"""`eat probe`: evaluate frozen features of a model on a prepared corpus."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from eat.commands.features import OVERRIDES
from eat.errors import ExperimentError
from eat.utils.arguments import integer, layer_numbers, option_errors, path

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from eat.data.evaluation_splits import Split
    from eat.evaluation.probing import ProbeResult
    from eat.inference.audio_encoder import AudioEncoder
    from eat.inference.probe_features import ProbeFeatures, TokenArray

OF_VECTORS, OF_TOKENS = ("knn", "linear"), ("attentive", "protobin", "cgp")
BASELINES = ("untrained", "log-mel", "mfcc")
LINE = "{:<10} {:<9} {:<8} {:<7} {:<20} {:<6} {}"

HELP = """
CORPUS is the SAVE_FOLDER of a recipe's prepare script. By default the probes are fitted
on balanced_train.csv and evaluated on eval.csv (AudioSet, own recordings), or train.csv
and test.csv (Speech Commands); with folds (ESC-50, own recordings) each is evaluated
with a probe that was fitted on the others, and the metric is that of all their clips.
It is the accuracy if every clip has one label, otherwise the mAP.

Probes of one vector for each clip, see --pooling: knn (40 nearest neighbors by cosine)
and linear (logistic regression). Probes of all tokens: attentive (learned queries),
protobin (binarized prototypes) and cgp (prototypes on a weighted sum of all --layers).
Hyper-parameters are chosen on held-out training clips. Features are kept in --cache."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = HELP
    add = parser.add_argument
    add("model", metavar="MODEL", help="model folder, .pt file or Hugging Face folder")
    add("corpus", type=Path, metavar="CORPUS", help="manifests of a prepare script")
    add("--data_folder", required=True, help="folder of the recordings")
    kinds = (*OF_VECTORS, *OF_TOKENS)
    add("--probe", nargs="+", choices=kinds, default=["linear"], help="default: linear")
    which = "a layer (default: -1, the last), a list (4,7; --layers=-4,-1), or all"
    add("--layers", type=layer_numbers, default=-1, metavar="L", help=which)
    pooled = "the CLS token (default), the mean of the patches, or both"
    add("--pooling", choices=("cls", "mean", "both"), default="cls", help=pooled)
    which = "of a pre-trained checkpoint"
    add("--weights", choices=("student", "teacher"), default="student", help=which)
    add("--seed", type=integer(0), default=0, help="first random seed (default: 0)")
    add(
        "--seeds", type=integer(1, 1000), default=1, help="number of seeds (default: 1)"
    )
    add("--compare", metavar="MODEL", help="another model, on the same clips and seeds")
    of = "features to compare with: a model with initial weights, statistics"
    add("--baselines", nargs="+", choices=BASELINES, default=[], help=of)
    add("--train", nargs="+", metavar="NAME", help="manifests to fit on")
    add("--test", metavar="NAME", help="manifest to evaluate on")
    where = "folder for features (default: CORPUS/probe_features)"
    add("--cache", type=path, help=where)
    add("--json", type=path, metavar="FILE", help="also write results to a new file")
    add("--device", help="cpu or cuda, for example (default: a GPU if any)")
    for name, kind in OVERRIDES.items():
        add(f"--{name}", type=kind, help="override the checkpoint's value")


def run(options: argparse.Namespace) -> int:
    """Print a line for each probe of each kind of features."""
    _check(options)

    from eat.utils.files import write_json
    from eat.utils.versions import versions

    given = {n: str(v) if isinstance(v, Path) else v for n, v in vars(options).items()}
    rows: list[dict[str, Any]] = []
    report = {"options": given, "versions": versions(), "rows": rows}
    for row in probe_rows(options):
        if not rows:
            names = ("features", "layer", "input", "probe", f"{row['metric']} [95%]")
            print(LINE.format(*names, "std", "MODEL minus this"))
        rows.append(row)
        print(_line(row), flush=True)
        if options.json:
            write_json(options.json, report)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what can be known to be wrong before torch is imported."""
    for given in (options.model, options.corpus, options.data_folder, options.compare):
        if given is not None and not os.path.lexists(given):
            raise ExperimentError(f"{given}: no such file or folder (check the path)")
    if not options.corpus.is_dir():
        raise ExperimentError(
            f"{options.corpus}: not a folder (give the SAVE_FOLDER of a recipe's "
            "prepare script)"
        )
    if options.json:
        if os.path.lexists(options.json):
            raise ExperimentError(
                f"--json {options.json}: already exists (give a new name)"
            )
        options.json.parent.mkdir(parents=True, exist_ok=True)
    options.cache = options.cache or options.corpus / "probe_features"


def _line(row: dict[str, Any]) -> str:
    """Return a line of the table."""

    def interval(found: dict[str, Any], sign: str = "") -> str:
        """Return a value with its interval as text."""
        value, low, high = (f"{found[n]:{sign}.3f}" for n in ("value", "low", "high"))
        return f"{value} [{low}, {high}]"

    std = f"{stdev(row['by_seed']):.3f}" if len(row["by_seed"]) > 1 else "-"
    compared = row.get("model_minus_this")
    difference = interval(compared, "+") if compared else ""
    layer = ",".join(map(str, row["layers"])) or "-"
    return LINE.format(
        *(row["features"], layer, row["input"], row["probe"]),
        *(interval(row), std, difference),
    ).rstrip()


class Job(NamedTuple):
    """A probe, the layers it is given (none: not of a network), and what of them."""

    probe: str
    layers: tuple[int, ...]
    input: str


class Source(NamedTuple):
    """Features to probe: their name, those of a seed and manifest, and the probes."""

    name: str
    features: Callable[[int, Path], ProbeFeatures]
    jobs: Sequence[Job]
    device: torch.device
    seeded: bool = False  # whether the features depend on the seed


def probe_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the results of each probe of each kind of features, the model's first."""
    import torch

    from eat.data.evaluation_splits import find_splits, read_targets
    from eat.data.manifest import read_labels
    from eat.evaluation.probe_suite import summarize

    splits = find_splits(options.corpus, options.train, options.test)
    targets = read_targets(splits, read_labels(options.corpus / "labels.csv"))
    tested = torch.cat([targets[split.test] for split in splits])
    seeds = range(options.seed, options.seed + options.seeds)
    reference: dict[Any, list[ProbeResult]] = {}  # results of MODEL
    for number, source in enumerate(list_sources(options)):
        different = seeds if source.seeded else seeds[:1]
        features = [
            {path: source.features(seed, path) for path in targets}
            for seed in different
        ] * (len(seeds) // len(different))
        for place, job in enumerate(source.jobs):
            own = different if job.probe == "knn" else seeds  # which has no seed itself
            results = [
                evaluate(splits, targets, of_seed, job, seed, source.device)
                for seed, of_seed in zip(own, features, strict=False)
            ] * (len(seeds) // len(own))
            # Statistics are compared with the last layer that MODEL is probed at.
            key = job.probe, place if job.layers else None
            if not number:
                reference[key] = reference[job.probe, None] = results
            other = reference.get(key) if number else None
            named = {"features": source.name, **job._asdict()}
            yield named | summarize(results, tested, other)


def evaluate(
    splits: Sequence[Split],
    targets: Mapping[Path, Tensor],
    features: Mapping[Path, ProbeFeatures],
    job: Job,
    seed: int,
    device: torch.device,
) -> ProbeResult:
    """Fit a probe for each split; evaluate the scores of all test clips."""
    import torch

    from eat.evaluation.probe_suite import run_probe
    from eat.evaluation.probing import ProbeResult
    from eat.inference.probe_features import TokenArray

    multi_label = any((labels.sum(dim=1) > 1).any() for labels in targets.values())

    def clips(*paths: Path) -> tuple[Tensor | list[TokenArray], Tensor]:
        """Return what the probe is given of the clips of manifests, and the labels."""
        parts = [features[path] for path in paths]
        labels = torch.cat([targets[path] for path in paths])
        if job.probe in OF_TOKENS:
            tokens = [[part.tokens[layer] for part in parts] for layer in job.layers]
            return [*map(TokenArray, tokens)], labels
        (layer,) = job.layers or (0,)
        return torch.cat([part.vectors(layer, job.input) for part in parts]), labels

    results = []
    for train, test in splits:
        data = *clips(*train), *clips(test)
        result = run_probe(
            job.probe, *data, seed=seed, multi_label=multi_label, device=device
        )
        results.append(result)
    scores = torch.cat([result.scores for result in results])
    tested = torch.cat([targets[split.test] for split in splits])
    chosen = {name: [r.chosen[name] for r in results] for name in results[0].chosen}
    return ProbeResult.evaluate(scores, tested, multi_label, **chosen)


def list_sources(options: argparse.Namespace) -> list[Source]:
    """Return what to probe: MODEL, the other and the baselines, loaded and checked."""
    from eat.evaluation.baselines import log_mel_statistics, mfcc_statistics
    from eat.inference.features import from_pretrained
    from eat.inference.probe_features import statistics_of, untrained
    from eat.interop.file_kinds import weights_checksum

    overrides = {n.removeprefix("norm_"): getattr(options, n) for n in OVERRIDES}

    def load(given: str) -> tuple[AudioEncoder, dict[str, Any]]:
        """Return a model, and what identifies its weights."""
        model = from_pretrained(given, options.weights, options.device, **overrides)
        return model, {"weights": options.weights, "sha256": weights_checksum(given)}

    loaded = load(options.model)
    model = loaded[0]
    sources = [network_source("MODEL", options, model, lambda _: loaded)]
    if options.compare is not None:
        other = load(options.compare)
        depths = [len(one.encoder.blocks) for one in (other[0], model)]
        if options.layers == "all" and depths[0] != depths[1]:
            raise ExperimentError(
                f"--compare {options.compare}: has {depths[0]} layers, MODEL "
                f"{depths[1]} (give --layers by numbers, such as -1)"
            )
        sources.append(network_source("other", options, other[0], lambda _: other))
    if "untrained" in options.baselines:
        source = network_source(
            *("untrained", options, model),
            lambda seed: (untrained(model, seed), {"untrained": seed}),
        )
        sources.append(source._replace(seeded=True))
    statistics = {"log-mel": log_mel_statistics, "mfcc": mfcc_statistics}
    probes = [probe for probe in options.probe if probe in OF_VECTORS] or ["linear"]
    jobs = [Job(probe, (), "mean+std") for probe in probes]
    for name in filter(statistics.get, options.baselines):

        def features(_: int, manifest: Path, name: str = name) -> ProbeFeatures:
            """Return the statistics of a manifest; no seed has an effect."""
            folder = options.data_folder
            return statistics_of(model, manifest, folder, statistics[name])

        sources.append(Source(name, features, jobs, model.device))
    return sources


def network_source(
    name: str,
    options: argparse.Namespace,
    model: AudioEncoder,
    network: Callable[[int], tuple[AudioEncoder, dict[str, Any]]],
) -> Source:
    """Return the features of the network of a seed, which is like the model."""
    from eat.inference.probe_cache import cached_features
    from eat.inference.probe_features import require_tokens
    from eat.inference.results import Readout

    with option_errors():
        layers = Readout.check(model.encoder, layers=options.layers).layers
    jobs = [
        Job(probe, own, options.pooling if probe in OF_VECTORS else "tokens")
        for probe in options.probe
        for own in ([layers] if probe == "cgp" else [(layer,) for layer in layers])
    ]
    tokens = sorted({n for job in jobs if job.probe in OF_TOKENS for n in job.layers})
    if tokens:
        require_tokens(model)

    def features(seed: int, manifest: Path) -> ProbeFeatures:
        """Return those of a manifest."""
        built, identity = network(seed)
        where = manifest, options.data_folder, options.cache
        return cached_features(built, identity, *where, tokens)

    return Source(name, features, jobs, model.device)
