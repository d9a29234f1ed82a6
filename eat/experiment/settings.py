"""Every setting of the YAML files and every run option: meaning, type and range.

One table, from which follow the checks, ``python train.py --help`` and the page
"Settings" of the documentation. A setting within an object is ``object.key``.
"""

from __future__ import annotations

from dataclasses import dataclass

BILLION = 1_000_000_000  # of nothing are there more
ANY, AT_LEAST_ZERO = "(-inf, inf)", "[0, inf)"


@dataclass(frozen=True)
class Setting:
    """What a setting means and which values it accepts.

    Attributes
    ----------
    kind
        ``integer``, ``number``, ``boolean``, ``text``, ``name`` (a text or an integer),
        ``numbers`` and ``names`` (lists), ``object`` (a mapping), or ``flag`` (a run
        option without a value).
    meaning
        In a few words, with the unit.
    interval
        Of a number or integer, such as ``(0, 1]``; a round bracket excludes its limit.
    choices
        All accepted texts; empty for any but the empty one.
    nullable
        Whether null is accepted as well.
    task
        ``pretrain`` or ``finetune`` if only its files have the setting.
    optional
        Whether a recipe can do without it.
    """

    kind: str
    meaning: str
    interval: str = ""
    choices: tuple[str, ...] = ()
    nullable: bool = False
    task: str = ""
    optional: bool = False

    @property
    def limits(self) -> tuple[float, float]:
        """The ends of the interval."""
        low, high = self.interval[1:-1].split(",")
        return float(low), float(high)

    @property
    def accepts(self) -> str:
        """The accepted values in words."""
        words = {
            "boolean": "True or False",
            "flag": "given or not",
            "integer": "an integer",
            "name": "a number or a name",
            "number": "a number",
            "numbers": "a list of two numbers",
            "names": "names",
            "object": "a mapping",
            "text": "text",
        }[self.kind]
        if self.choices:
            words = " or ".join((", ".join(self.choices[:-1]), self.choices[-1]))
        elif self.interval == AT_LEAST_ZERO:
            words += " of at least 0"
        elif self.kind == "integer" and self.limits[1] >= BILLION:
            words += f" of at least {self.limits[0]:g}"
        elif self.interval not in ("", ANY):
            words += f" in {self.interval}"
        return f"{words}, or null" if self.nullable else words


def _integer(
    meaning: str, low: int, high: int = BILLION, task: str = "", optional: bool = False
) -> Setting:
    interval = f"[{low}, {high}]"
    return Setting("integer", meaning, interval, task=task, optional=optional)


def _number(
    meaning: str,
    interval: str = AT_LEAST_ZERO,
    task: str = "",
    optional: bool = False,
    nullable: bool = False,
) -> Setting:
    return Setting("number", meaning, interval, (), nullable, task, optional)


def _boolean(
    meaning: str, task: str = "", optional: bool = False, nullable: bool = False
) -> Setting:
    return Setting("boolean", meaning, "", (), nullable, task, optional)


def _text(
    meaning: str, *choices: str, task: str = "", optional: bool = False
) -> Setting:
    return Setting("text", meaning, "", choices, False, task, optional)


def _part(meaning: str, task: str = "") -> Setting:
    return Setting("object", meaning, task=task)


def _flag(meaning: str) -> Setting:
    return Setting("flag", meaning)


PRE, FINE = "pretrain", "finetune"
PRECISIONS = ("fp32", "fp16", "bf16")

KNOWN_SETTINGS = {
    "task": _text("what the file trains", PRE, FINE),
    "seed": _integer("random seed", 0, 2**32 - 1),
    # Data and output
    "corpus": _text("form of the data: recordings, or shards of them", optional=True),
    "data_folder": _text("folder of the recordings"),
    "output_folder": _text("folder for everything the run writes"),
    "pretrained": _text("model folder, official .pt file, or none", task=FINE),
    "manifest_folder": _text("folder of the manifests"),
    "train_manifest": _text("name of the manifest to train on", optional=True),
    "held_out": _number("share of clips to validate on", "[0, 0.5]", optional=True),
    "labels": _text("table of labels, folders, none, or auto", optional=True),
    "test_labels": _text("table of the recordings to evaluate on", optional=True),
    "label_mode": _text(
        "labels per clip", "auto", "single", "multi", task=FINE, optional=True
    ),
    "fold": Setting("name", "fold to evaluate on", nullable=True, optional=True),
    # Input
    "num_classes": _integer("number of classes", 1, 1_000_000, FINE),
    "num_frames": _integer("frames of a spectrogram (10 ms), whole patches of 16", 16),
    "max_seconds": _number("seconds of a clip to read", "[0.025, 100000]"),
    "norm_mean": _number("mean of the log-mel", "[-1000, 1000]"),
    "norm_std": _number("standard deviation of the log-mel", "[0.000001, 1000]"),
    # Length
    "number_of_epochs": _integer("epochs to train", 1),
    "steps_per_epoch": _integer("optimizer steps per epoch", 1),
    "total_steps": _integer("optimizer steps until the lr is min_lr again", 1),
    "warmup_steps": _integer("optimizer steps of lr warm-up", 0),
    # Batch
    "batch_size": _integer("clips per batch and process", 1, 1_000_000),
    "grad_accumulation_factor": _integer("batches per optimizer step", 1, 1_000_000),
    "weighted_draws": _integer(
        "clips drawn per epoch, weighted by class; 0: not weighted", 0, optional=True
    ),
    "num_workers": _integer("data workers per process", 0, 1024),
    "max_unreadable_share": _number("share of unreadable clips to accept", "[0, 1]"),
    # Optimizer
    "lr": _number("peak learning rate", "[0, 1000]"),
    "min_lr": _number("learning rate of the first and last step", "[0, 1000]"),
    "scale_min_lr": _boolean("apply layer_decay to min_lr as well"),
    "layer_decay": _number("factor of the lr per block from the top", "(0, 1]", FINE),
    "weight_decay": _number("weight decay", "[0, 1000]"),
    "decay_vectors": _boolean("decay biases and norms as well"),
    "max_grad_norm": _number("norm that gradients are clipped to; 0: not clipped", ANY),
    "opt_class": _part("optimizer"),
    "opt_class.betas": Setting("numbers", "decay of AdamW's moments", "[0, 1)"),
    "opt_class.eps": _number("AdamW's epsilon", "[0, 1]"),
    "opt_class.fused": _boolean("use the fused AdamW", nullable=True),
    # Augmentation
    "roll": _boolean("roll clips and change their gain", FINE, True),
    "noise": _boolean("add noise to spectrograms and shift them", FINE, True),
    "mixup_alpha": _number("alpha of mixup; 0: none", "[0, 1000]", FINE, True),
    "mixup_probability": _number("share of mixed batches", "[0, 1]", FINE, True),
    "spec_augment_ratio": _number("largest masked share of an axis", "[0, 1]", FINE),
    "label_smoothing": _number("label smoothing", "[0, 1)", FINE, True),
    # Pre-training
    "clones": _integer("masks per clip", 1, 10_000, PRE),
    "lambda": _number("weight of the utterance loss, as the paper has it", task=PRE),
    "utterance_weight": _number("weight of the utterance loss's mean", task=PRE),
    "ema_start": _number("first decay of the teacher", "[0, 1]", PRE),
    "ema_end": _number("last decay of the teacher", "[0, 1]", PRE),
    "ema_anneal_steps": _integer("optimizer steps between the two", 0, task=PRE),
    "blocks": _text(
        "mask blocks in patches (time x frequency), such as 5x5 or 6x4,5x5", task=PRE
    ),
    "mask_sampler": _part("masks", PRE),
    "mask_sampler.mask_ratio": _number("share of patches to mask", "(0, 1)"),
    "mask_sampler.adjust": _number("added to the visible share for blocks", "[0, 1)"),
    "mask_sampler.blocks": _text("blocks"),
    # Network
    "pooling": _text("input of the head", "cls", "mean", "linear_softmax", task=FINE),
    "mask_padding": _boolean("attend to no padding of clips", FINE),
    "frontend": _part("front end"),
    "frontend.mean": _number("norm_mean", "[-1000, 1000]"),
    "frontend.std": _number("norm_std", "[0.000001, 1000]"),
    "frontend.num_frames": _integer("num_frames", 16),
    "encoder": _part("encoder"),
    "encoder.preset": _text("size", "micro", "tiny", "small", "base", "large"),
    "encoder.drop_path": _number("drop path rate of the last block", "[0, 1)"),
    "encoder.position_scale": _number("factor of the positions", "[0, 1000]"),
    "encoder.bf16_residual": _boolean("tokens between the layers in bf16 as well"),
    "encoder.max_frames": _integer("frames of the longest input", 16, 10_000_000),
    "classifier": _part("classifier", FINE),
    "classifier.encoder": _part("encoder"),
    "classifier.num_classes": _integer("num_classes", 1, 1_000_000),
    "classifier.pooling": _text("pooling", "cls", "mean", "linear_softmax"),
    "classifier.mask_padding": _boolean("mask_padding"),
    "decoder": _part("decoder", PRE),
    "decoder.dim": _integer("width, that of the encoder", 1, 100_000),
    "decoder.depth": _integer("convolutions", 1, 1000),
    "decoder.kernel": _integer("kernel size, odd", 1, 99),
    "decoder.groups": _integer("groups, a divisor of the width", 1, 100_000),
    "student": _part("student", PRE),
    "student.encoder": _part("encoder"),
    "student.decoder": _part("decoder"),
    "student.mask_noise_std": _number("standard deviation of mask tokens", "[0, 1000]"),
    "teacher": _part("teacher", PRE),
    "teacher.encoder": _part("encoder"),
    "teacher.center_momentum": _number(
        "momentum of the targets' running mean; null: not centered",
        "[0, 1)",
        nullable=True,
    ),
    "teacher.num_patches": _integer("patches of a clip", 1),
    "model": _part("pre-training model", PRE),
    "model.student": _part("student"),
    "model.teacher": _part("teacher"),
    "model.utterance_weight": _number("utterance_weight"),
    "modules": _part("modules of the Brain"),
    "modules.frontend": _part("frontend"),
    "modules.model": _part("model"),
    "modules.classifier": _part("classifier"),
    # Monitoring and checkpoints
    "log_interval": _integer("optimizer steps between log lines", 1),
    "tensorboard": _boolean("also write the metrics for TensorBoard"),
    "wandb": _text("project on Weights & Biases to log to, or none"),
    "collapse_monitor": _part("collapse monitor", PRE),
    "collapse_monitor.warn_std": _number("warn if features vary less"),
    "collapse_monitor.stop_std": _number("stop if less", nullable=True),
    "collapse_monitor.warn_between_clip_variance": _number(
        "warn if less of the variance lies between clips", "[0, 1]"
    ),
    "collapse_monitor.stop_between_clip_variance": _number(
        "stop if less", "[0, 1]", nullable=True
    ),
    "collapse_monitor.grace_steps": _integer("first steps, not checked", 0),
    "keep_checkpoints": _integer("newest checkpoints to keep", 1),
    "keep_every_epochs": _integer("also keep every n-th epoch's; 0: none", 0),
    "keep_epoch_models": _boolean("keep a model folder per epoch", PRE),
    "ckpt_interval_minutes": _number("minutes between checkpoints; 0: none between"),
    "epoch_counter": _part("epoch counter"),
    "epoch_counter.limit": _integer("number_of_epochs", 1),
    "checkpointer": _part("checkpointer"),
    "checkpointer.checkpoints_dir": _text("folder of the checkpoints"),
    "checkpointer.recoverables": _part("what a checkpoint holds"),
    "train_logger": _part("epoch log"),
    "train_logger.save_file": _text("its file"),
    "train_logger.precision": _integer("decimals", 0, 20),
    "precision": _text("training precision", *PRECISIONS),
    "eval_precision": _text("evaluation precision", *PRECISIONS),
}

# SpeechBrain's, see `eat.experiment.command_line`. Those which YAML files have too are
# above.
RUN_OPTIONS = {
    "device": _text("device, such as cpu, cuda or cuda:1; default: a GPU if any"),
    "distributed_backend": _text("backend with torchrun", "nccl", "gloo", "mpi"),
    "find_unused_parameters": _flag("let DDP look for unused parameters"),
    "test_only": _flag("only evaluate --pretrained"),
    "nonfinite_patience": _integer("skipped steps in a row to accept", 0),
    "ckpt_interval_steps": _integer("batches between checkpoints; 0: none between", 0),
    "noprogressbar": _flag("show no progress bars"),
    "tqdm_colored_bar": _flag("show colored progress bars"),
    "debug": _flag("run few batches and epochs, as a test"),
    "debug_batches": _integer("batches per epoch with --debug", 1),
    "debug_epochs": _integer("epochs with --debug; 0: all", 0),
    "debug_persistently": _flag("keep what --debug writes"),
    "compile": _flag("compile the model with torch.compile"),
    "compile_module_keys": Setting("names", "modules to compile; default: the model"),
    "compile_mode": _text(
        "mode of torch.compile", "default", "reduce-overhead", "max-autotune"
    ),
    "compile_using_fullgraph": _flag("compile with fullgraph=True"),
    "compile_using_dynamic_shape_tracing": _flag("compile with dynamic=True"),
    "profile_training": _flag("profile some training steps, then exit"),
    "profile_warmup": _integer("steps before profiling", 0),
    "profile_steps": _integer("steps to profile", 1),
    "precision": KNOWN_SETTINGS["precision"],
    "eval_precision": KNOWN_SETTINGS["eval_precision"],
    "max_grad_norm": KNOWN_SETTINGS["max_grad_norm"],
    "grad_accumulation_factor": KNOWN_SETTINGS["grad_accumulation_factor"],
    "ckpt_interval_minutes": KNOWN_SETTINGS["ckpt_interval_minutes"],
}

# Options of SpeechBrain that do nothing here or cannot work, and what to use instead.
UNSUPPORTED = {
    "log_config": "all is logged to log.txt",
    "jit": "use --compile",
    "jit_module_keys": "use --compile",
    "data_parallel_backend": "use torchrun",
    "auto_mix_prec": "use --precision fp16",
    "bfloat16_mix_prec": "use --precision bf16",
    "optimizer_step_limit": "use --number_of_epochs and --steps_per_epoch",
    "remove_vector_weight_decay": "use --decay_vectors False",
    "skip_nonfinite_grads": "such steps are always skipped",
}
