"""What RESULTS.md says in words: how to read a table, what to suspect."""

from __future__ import annotations

TITLES = {
    "table1": "Table 1: fine-tuning on four tasks",
    "table2": "Table 2: what pre-training costs",
    "table3": "Table 3: block size of the masks",
    "figure3": "Figure 3: epochs of pre-training",
    "figure4": "Figure 4: weight of the utterance loss, and pooling",
}
# First columns of a table, filled with a cell's column or row.
ROW_NAMES = {
    "table1": ("task",),
    "table3": ("blocks",),
    "figure3": ("epoch",),
    "figure4": ("lambda", "pooling"),
}

TOP = """\
# Results

Written by `python tools/tabulate_results.py` from `results/published`; do not edit."""

READING = """\
mAP (AudioSet) and accuracy in percent. n counts seeds, each a pre-training and a
fine-tuning of its own; ± is the standard deviation over seeds, not an error of the
mean. Where x + y stands, x is pre-training and y fine-tuning. A dash is a run not made,
or a number not known. *Best epoch* is chosen on the evaluation clips themselves, as
published (Speech Commands: on the validation list, then judged on the testing list);
*last epoch* is free of that choice (Speech Commands: accuracy on the validation
list)."""

FULL_INTRO = """\
The paper's settings on AudioSet, ESC-50 and Speech Commands V2. GPU hours are estimates
for an RTX 3090: the paper's 230 for a pre-training, and from it, by the ratio of
operations, for fine-tunings; a finished run shows its own, with its device. A
pre-training that several rows share is counted once in the totals."""

MINI_INTRO = """\
The same experiments in miniature: a network of 0.8 M parameters with weaker positions
and centered targets, on small corpora of real recordings
(`tools/make_mini_corpora.py`), with a grid of 16 x 8
patches where the paper has 64 x 8. Scores are not comparable with
the paper's, whose column stands there to compare orders and shapes. AS-2M and AS-20K
mean their miniatures: 5,000 and 1,000 training clips of 2.56 s, 20 classes, 600
evaluation clips. Fine-tuning on AS-20K is one epoch of 400 steps, so that best and last
epoch are one. Minutes are those of the clock: one run on one core, another run beside
it, at times other work as well.

When yours differ: processors without AVX512-bf16 train in fp32, and other versions of
torch round differently, so that equal seeds agree in distribution only; compare means,
with the spread in mind."""

RERUNS = """\
What others got from published systems, to hold yours against as well.
Per-class AP of four official models is in the `results` folder of the official code;
`python tools/compare_class_ap.py` sets a run's `class_ap.txt` beside one."""

CHAPTERS = {"full": ("Full size", FULL_INTRO), "mini": ("Mini corpora", MINI_INTRO)}

COST_CAUTION = """\
The hours compare epochs, hardware and implementation all at once: Audio-MAE costs 209
GFLOP a clip against EAT's 1083 (counted here, a multiply-add as two), so that EAT's 10
epochs are 1.6 times the operations of Audio-MAE's 32, in a tenth of the GPU hours.
Clips per second of the paper's EAT follow from its 400,000 steps of 48 clips in 58
hours."""

_PRETRAINING = (
    "Which half differs? Fine-tune the published checkpoint first (`--pretrained` "
    "takes its .pt file): from it others reach the printed AS-20K, and one of them got "
    "35.8 after a pre-training of his own with the official script and 1.93M clips.",
    "Clips at hand: AudioSet shrinks. The paper had 1,912,134 for pre-training, 20,550 "
    "balanced, 18,884 for evaluation; missing ones change the score of any model.",
)
_UTTERANCE = (
    "The official utterance loss is a sum over a GPU's 12 x 16 rows, so that its "
    "weight moves with batch x clones; here it stands in the YAML (192 between two "
    "means) and does not."
)
_MASKS = (
    "Masks: exactly 102 of 512 patches stay visible (not 103), in blocks around 5 "
    "centers for 5x5, clamped at the borders; `tests/fixtures/parity` has their "
    "statistics."
)
_SEEDS = (
    "Seeds: the printed spreads are 0.03 to 0.05; without two seeds of your own a few "
    "tenths tell nothing."
)

SUSPECTS = {
    "table1": (
        *_PRETRAINING,
        "Best or last epoch: the printed numbers are the best of all epochs on the "
        "evaluation clips; compare like with like.",
        "`min_lr` is not scaled by layer decay: blocks 0 to 2 keep one rate throughout "
        "(`scale_min_lr: True` mends it, and is not what the paper ran).",
        "AS-2M: 200,000 weighted draws an epoch without replacement; the official "
        "weights are in a file that was not published.",
        "ESC-50 and Speech Commands have normalization constants of their own; ESC-50 "
        "is the mean of the corpus's five folds.",
        _SEEDS,
    ),
    "table2": (
        "Clips per second are those of training, evaluation apart; waiting for files "
        "counts, so look at the disk and `num_workers` before the GPU.",
        "`grad_accumulation_factor` 4 on one GPU keeps the batch of four.",
    ),
    "table3": (
        *_PRETRAINING,
        _MASKS,
        "From 3x3 to 8x8 the paper's rows lie within 0.4, each printed without a "
        "spread.",
    ),
    "figure3": (
        *_PRETRAINING,
        "Here every point is a stop on the way of one pre-training of 10 epochs, its "
        "learning rate still on the way down: not a pre-training of that many epochs.",
        "The paper's points are read off a plot, ± 0.1.",
    ),
    "figure4": (
        *_PRETRAINING,
        _UTTERANCE,
        "Gradients are clipped at norm 4, and the utterance loss dominates that norm.",
    ),
}
