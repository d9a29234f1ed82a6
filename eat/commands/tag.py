"""`eat tag`: print the classes detected in audio files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eat.errors import AudioError, ExperimentError, printable
from eat.utils.arguments import integer, number, option_errors

if TYPE_CHECKING:
    from eat.inference.features import AudioEncoder, Tag

HELP = """
A PATH is an audio file, or a folder, which is searched with its subfolders. Scores are
averaged over the whole file; with --window, each window has tags of its own, with the
times of its start and end in seconds.

With --json, a line per file: {"path": ..., "tags": [{"label": ..., "score": ...,
"start": ..., "end": ...}, ...]}, or {"path": ..., "error": ...}.

The exit status is 1 if a file could not be read; the others are tagged nevertheless.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = HELP
    add = parser.add_argument
    add("model", metavar="MODEL", help="fine-tuned checkpoint: a folder or a .pt file")
    add("paths", nargs="+", metavar="PATH", help="audio file or folder")
    add(
        "--top", type=integer(1), default=5, help="tags per file or window (default: 5)"
    )
    add("--threshold", type=number(0, 1), help="lowest score to show (default: any)")
    add("--window", type=float, metavar="S", help="seconds, at most the model's length")
    add("--overlap", type=float, default=0.0, help="share of a window, 0 to below 1")
    add("--json", action="store_true", help="print a JSON object per file")
    add("--labels", metavar="FILE", help="names of the classes: .txt, .csv or .json")
    add("--device", help="cpu or cuda, for example (default: a GPU if any)")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="of the encoder")


def run(options: argparse.Namespace) -> int:
    """Tag the files one by one; return 1 if one of them could not be read."""
    from eat.audio.folders import audio_files

    paths = list(audio_files(options.paths))
    model = load_tagger(options)
    chosen = options.top, options.threshold, options.window, options.overlap
    unreadable = 0
    for path in paths:
        try:
            with option_errors():
                tags = model.tag_file(path, *chosen)
        except AudioError as error:
            unreadable += 1
            print(error, file=sys.stderr)
            if options.json:
                print(json.dumps({"path": path, "error": str(error)}), flush=True)
            continue
        if options.json:
            record = {"path": path, "tags": [tag._asdict() for tag in tags]}
            print(json.dumps(record), flush=True)
        else:
            print(table(path, tags, options.window is not None), flush=True)
    if unreadable:
        print(f"{unreadable} of {len(paths)} files could not be read", file=sys.stderr)
    return int(unreadable > 0)


def load_tagger(options: argparse.Namespace) -> AudioEncoder:
    """Load the classifier, with the names of `options.labels` if there are any."""
    from eat.inference.features import from_pretrained
    from eat.interop.loading import Checkpoint

    if Checkpoint.read(options.model).kind != "classifier":
        raise ExperimentError(
            f"{options.model}: was pre-trained without classes, so it cannot tag "
            "(fine-tune it, see recipes/OwnData, or use `eat features`)"
        )
    chosen = {
        name: getattr(options, name) for name in ("device", "precision", "labels")
    }
    with option_errors():
        return from_pretrained(options.model, **chosen)


def table(path: str, tags: Sequence[Tag], with_times: bool) -> str:
    """Return a file's tags as lines: its path, then times, scores and labels."""
    lines = [printable(path)]
    for tag in tags:
        times = f"{tag.start:8.2f} - {tag.end:7.2f} s" if with_times else ""
        lines.append(f"{times}  {tag.score:.3f}  {printable(tag.label)}")
    return "\n".join(lines)
