"""What the paper and others printed, each number with its source. Scores in percent."""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "[EAT](https://arxiv.org/abs/2401.03497)"
AUTHORS = "[README of the authors](https://github.com/cwx-worst-one/EAT)"
SSLAM = "[SSLAM](https://github.com/ta012/SSLAM)"
BAT = "[BAT](https://arxiv.org/abs/2602.16305)"
EAT_3 = "[EAT issue 3](https://github.com/cwx-worst-one/EAT/issues/3)"
EAT_4 = "[EAT issue 4](https://github.com/cwx-worst-one/EAT/issues/4)"
SSLAM_7 = "[SSLAM issue 7](https://github.com/ta012/SSLAM/issues/7)"


@dataclass(frozen=True)
class Printed:
    """A number of the paper.

    Attributes
    ----------
    score
        As last printed.
    spread
        What stands behind its plus-minus sign.
    preprint
        What the first version on arXiv printed, where it differs.
    exact
        False where the number was derived from the text or read off a plot.
    """

    score: float
    spread: float | None = None
    preprint: float | None = None
    exact: bool = True

    def __str__(self) -> str:
        """As a table shows it."""
        spread = "" if self.spread is None else f" ± {self.spread}"
        earlier = "" if self.preprint is None else f" (preprint {self.preprint})"
        return f"{'' if self.exact else '≈ '}{self.score}{spread}{earlier}"


# By table, then by row and column of the cell.
PRINTED: dict[str, dict[tuple[str, str], Printed]] = {
    "table1": {
        ("EAT", "AS-2M"): Printed(48.6, 0.05),
        ("EAT", "AS-20K"): Printed(40.3, 0.04, 40.2),
        ("EAT", "ESC-50"): Printed(96.0, 0.03, 95.9),
        ("EAT", "SPC-2"): Printed(98.3, 0.04),
    },
    "table2": {("EAT", "AS-20K"): Printed(40.3, None, 40.2)},
    "table3": {
        ("1x1", "AS-20K"): Printed(37.8),
        ("2x2", "AS-20K"): Printed(39.5),
        ("3x3", "AS-20K"): Printed(39.9),
        ("4x4", "AS-20K"): Printed(40.0),
        ("5x5", "AS-20K"): Printed(40.2),
        ("6x6", "AS-20K"): Printed(39.8),
        ("7x7", "AS-20K"): Printed(39.8),
        ("8x8", "AS-20K"): Printed(39.8),
        ("6x4,5x5,8x3", "AS-20K"): Printed(40.2),
    },
    "figure3": {
        (str(epoch), "AS-20K"): Printed(score, exact=False)
        for epoch, score in enumerate(
            (34.2, 37.1, 37.6, 38.1, 38.7, 39.1, 39.6, 39.9, 40.1, 40.2), 1
        )
    },
    "figure4": {
        ("0", "cls"): Printed(38.9, exact=False),
        ("0.01", "cls"): Printed(39.2, exact=False),
        ("1", "cls"): Printed(40.2, exact=False),
    },
}
SOURCES = {
    "table1": f"{PAPER}, Table 1, preprint (v1) and camera-ready version.",
    "table2": f"{PAPER}, Table 2.",
    "table3": f"{PAPER}, Table 3. 1x1 is random masking; the last row draws one of "
    "three shapes for each clip.",
    "figure3": f"{PAPER}, Figure 3, read off the plot by eye (± 0.1). In its words: "
    "level with Audio-MAE after 2 epochs, past BEATs iter3 by the 5th.",
    "figure4": f"{PAPER}, text on Figure 4: a weight of 1 is 1.3 above 0 and 1.0 "
    "above 0.01, 10 is worse than 1, CLS better than mean pooling. The other points "
    "of the plot are not known here.",
}


@dataclass(frozen=True)
class System:
    """A row of the comparisons with other systems (None: not printed)."""

    name: str
    as2m: float | None
    as20k: float | None
    esc50: float | None
    spc2: float | None
    source: str


SYSTEMS = (
    System("AST (supervised, ImageNet)", 45.9, 34.7, 88.7, 98.1, PAPER),
    System("HTS-AT (supervised, ImageNet)", 47.1, None, 97.0, 98.0, PAPER),
    System("Audio-MAE", 47.3, 37.1, 94.1, 98.3, PAPER),
    System("BEATs iter3", 48.0, 38.3, 95.6, 98.3, PAPER),
    System("BEATs iter3+ (further labels)", 48.6, 38.9, 98.1, 98.1, PAPER),
    System("EAT base, 30 epochs", 48.9, 41.3, None, None, AUTHORS),
    System("EAT large, 20 epochs", 49.5, 42.0, None, None, AUTHORS),
    System("SSLAM (not reproduced, see above)", 50.2, 40.9, 96.2, 98.1, SSLAM),
)


@dataclass(frozen=True)
class Rerun:
    """What somebody else got from a published system.

    Attributes
    ----------
    system, task, how
        What was run.
    score
        What came out: a number in percent, or words.
    printed
        The number it is to be held against.
    source
        Where it is told.
    """

    system: str
    task: str
    how: str
    score: float | str
    printed: float
    source: str


SCRIPT_ANEW = "pre-trained with the official script on 1.93M clips, then fine-tuned"
CHECKPOINT = "published checkpoint, fine-tuned"
OWN_PROTOCOL = f"{CHECKPOINT}, one protocol for all systems"
RERUNS = (
    Rerun("EAT", "AS-20K", SCRIPT_ANEW, 35.8, 40.2, EAT_4),
    Rerun("EAT", "AS-20K", CHECKPOINT, "as printed", 40.2, EAT_4),
    Rerun("EAT", "AS-20K", CHECKPOINT, "not reached", 40.2, f"{EAT_3} (its title)"),
    Rerun("EAT", "AS-20K", "fine-tuned, as SSLAM's baseline", 40.4, 40.2, SSLAM),
    Rerun("EAT", "AS-20K", OWN_PROTOCOL, 40.37, 40.3, BAT),
    Rerun("EAT", "AS-2M", OWN_PROTOCOL, 47.84, 48.6, BAT),
    Rerun("SSLAM", "AS-2M", "published checkpoint, EAT's script", 48.5, 50.2, SSLAM_7),
    Rerun("SSLAM", "AS-2M", OWN_PROTOCOL, 47.82, 50.2, BAT),
    Rerun("SSLAM", "AS-20K", OWN_PROTOCOL, 40.26, 40.9, BAT),
)


@dataclass(frozen=True)
class PretrainingCost:
    """A row of Table 2; ``gflop_per_clip`` was counted here, not by the papers."""

    model: str
    epochs: int
    gpu_hours: float
    hardware: str
    gflop_per_clip: float | None
    score: float


COSTS = (
    PretrainingCost("BEATs iter3", 342, 3600, "16 V100", None, 38.3),
    PretrainingCost("Audio-MAE", 32, 2304, "64 V100", 209, 37.1),
    PretrainingCost("EAT", 10, 230, "4 RTX 3090", 1083, 40.3),
)
# Horizontal lines of Figure 3.
LEVELS = {"Audio-MAE, 32 epochs": 37.1, "BEATs iter3, 342 epochs": 38.3}
