"""The two sizes of every experiment: the paper's, and one of minutes.

Tasks are named as the paper names them: AS-2M, AS-20K, ESC-50, SPC-2.
"""

from __future__ import annotations

from dataclasses import dataclass

from paper_tables.jobs import cpu_options

CORPORA = {
    "AS-2M": "AudioSet",
    "AS-20K": "AudioSet",
    "ESC-50": "ESC50",
    "SPC-2": "SpeechCommands",
}


@dataclass(frozen=True)
class Scale:
    """How one pre-trains and fine-tunes: at the paper's size, or in minutes.

    Attributes
    ----------
    name
        ``full`` or ``mini``.
    pretrain
        YAML file of pre-training.
    epochs, steps_per_epoch
        Of pre-training.
    blocks
        Its masks' blocks, where a table does not say otherwise.
    pooling
        Of fine-tuning, likewise.
    tasks
        From a task to its YAML file, settings, optimizer steps of a run.
    gpu_hours
        Estimates by task, and of ``pretrain``; empty where a run takes minutes.
    options
        SpeechBrain's run options.
    """

    name: str
    pretrain: str
    epochs: int
    steps_per_epoch: int
    blocks: str
    pooling: str
    tasks: dict[str, tuple[str, dict[str, object], int]]
    gpu_hours: dict[str, float]
    options: tuple[str, ...] = ()


FULL = Scale(
    "full",
    "pretrain.yaml",
    10,
    40_000,
    "5x5",
    "cls",
    {
        "AS-2M": ("finetune_as2m.yaml", {}, 300_000),
        "AS-20K": ("finetune_as20k.yaml", {}, 40_000),
        "ESC-50": ("finetune.yaml", {}, 4_000),
        "SPC-2": ("finetune.yaml", {}, 40_000),
    },
    # On an RTX 3090: the paper's 230 for pre-training; the others from it by the ratio
    # of operations (1083 GFLOP a clip in pre-training; 290, 140 and 36 in fine-tuning
    # on 1024, 512 and 128 frames) and of clips.
    {"pretrain": 230, "AS-2M": 92, "AS-20K": 6, "ESC-50": 0.3, "SPC-2": 4},
)


def mini_scale() -> Scale:
    """The tiny network on the mini corpora: some two minutes a run on one core."""
    steps = 400
    short = {"steps_per_epoch": steps, "number_of_epochs": 1}
    all_clips = {"train_manifest": "pretrain"}
    weighted = {"steps_per_epoch": 100, "number_of_epochs": 4, "weighted_draws": 1600}
    return Scale(
        "mini",
        "pretrain_mini.yaml",
        3,
        300,
        "2x2",
        "mean",
        {
            "AS-2M": ("finetune_mini.yaml", {**all_clips, **weighted}, steps),
            "AS-20K": ("finetune_mini.yaml", short, steps),
            "ESC-50": ("finetune_mini.yaml", {}, 400),
            "SPC-2": ("finetune_mini.yaml", {}, 800),
        },
        {},
        cpu_options(),
    )
