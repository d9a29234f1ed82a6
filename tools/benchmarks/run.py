"""Measure speed and memory of training, features and data loading.

    python tools/benchmarks/run.py step --preset base --precision bf16,fp32 --batch 1,4
    python tools/benchmarks/run.py WHAT --help

Options take several values, separated by commas; all combinations are measured in turn,
so that a busy machine disturbs them alike. Times are minimum, median and maximum over
the rounds. `x floor` is the median time over that of the layers' own matrix products
and convolutions, forward and backward, timed alone in the same rounds with the same
shapes, precision and threads. `x strict` is the time over all operations at the rate of
the linear layers' products.
"""

from __future__ import annotations

import argparse
import os
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

# Before torch is imported: threads that spin while they wait disturb other processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's messages
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from eat.errors import exit_on_error  # noqa: E402
from eat.experiment.console import quiet_speechbrain  # noqa: E402

quiet_speechbrain()  # before it is imported

from benchmarks import features, loader, memory, overhead, training  # noqa: E402
from benchmarks.measuring import (  # noqa: E402
    add_json_option,
    add_variant_options,
    require_new,
)

HELP = {
    "step": "pre-training step: recipes/AudioSet/hparams/pretrain.yaml, pretrain_large",
    "finetune": "fine-tuning step: recipes/AudioSet/hparams/finetune_as20k.yaml",
    "features": "encoder forward pass, and `eat features` on a folder of wav files",
    "loader": "data loader: clips per CPU second",
    "memory": "peak memory by batch, and the largest batch that fits",
    "overhead": "step without its products, in bf16 on a CPU: time and peak memory",
    "manifest": "manifest of millions of clips (options: see manifest.py)",
}


MODULES = {
    "features": features,
    "loader": loader,
    "memory": memory,
    "overhead": overhead,
}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, text in HELP.items():
        kind = kinds.add_parser(name, help=text, description=text)
        if name not in ("loader", "manifest"):
            add_variant_options(kind, clones=name in ("step", "memory", "overhead"))
        if name in MODULES:
            MODULES[name].add_options(kind)
        if name == "manifest":
            kind.add_argument("arguments", nargs=argparse.REMAINDER)
        else:
            add_json_option(kind)
    return parser


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> None:
    """Run a benchmark."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["manifest"]:
        script = str(ROOT / "tools" / "benchmarks" / "manifest.py")
        with patch.object(sys, "argv", [script, *words[1:]]):
            runpy.run_path(script, run_name="__main__")
        return
    options = make_parser().parse_args(words)
    require_new(options.json)
    command = shlex.join(["python", "tools/benchmarks/run.py", *words])
    if options.what in training.TASKS:
        training.run(options.what, options, command)
        return
    MODULES[options.what].run(options, command)


if __name__ == "__main__":
    main()
