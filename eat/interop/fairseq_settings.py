"""What each setting of an official model means here: every one is accounted for.

``cfg.model`` of a checkpoint holds some hundred settings. A setting that decides what
the encoder computes, or what pre-training compares, is either read by
:mod:`eat.interop.fairseq` or must have the value that this toolkit implements. Any
other has a value for new files: that of the official configuration for AudioSet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eat.errors import CheckpointError
from eat.interop.config_schema import excerpt
from eat.model.patching import PATCH


@dataclass(frozen=True)
class Ignored:
    """A setting without effect here, and its value in new files if it is a constant."""

    written: Any = ...


USED = "used"  # a number

# USED, Ignored, or the values that are accepted, first the one of new files.
Rule = str | Ignored | tuple[Any, ...]
ZERO = (0,)
NO = (False, None)

# What changes the features.
ENCODER: dict[str, Rule] = {
    "_name": ("data2vec_multi",),
    "depth": USED,
    "embed_dim": USED,
    "num_heads": USED,
    "norm_eps": (1e-6,),
    "norm_affine": (True,),
    "mlp_ratio": (4,),
    "layer_norm_first": NO,
    "supported_modality": ("IMAGE", 2, None),  # the spectrogram
    "modalities.image.type": ("IMAGE", 2),
    "modalities.image.prenet_depth": ZERO,
    "modalities.image.num_extra_tokens": (1,),
    "modalities.image.use_alibi_encoder": NO,
    "modalities.image.in_chans": (1,),
    "modalities.image.patch_size": (16,),
    "modalities.image.embed_dim": USED,
    "modalities.image.fixed_positions": (True,),
}

# What changes the targets, the predictions or the losses of pre-training.
OBJECTIVE: dict[str, Rule] = {
    # the weights of the losses
    "cls_loss": USED,
    "clone_batch": USED,
    "d2v_loss": (1,),
    "recon_loss": ZERO,
    "loss_beta": ZERO,
    "loss_scale": (None,),
    "utterance_level": NO,
    # the teacher
    "average_top_k_layers": USED,
    "end_of_block_targets": NO,
    "layer_norm_target_layer": NO,
    "batch_norm_target_layer": NO,
    "instance_norm_target_layer": (True,),
    "instance_norm_targets": NO,
    "layer_norm_targets": (True,),
    "ema_encoder_only": NO,
    "modalities.image.ema_local_encoder": (True,),
    # the student's regularization
    "start_drop_path_rate": ZERO,
    "end_drop_path_rate": ZERO,
    "encoder_dropout": ZERO,
    "post_mlp_drop": ZERO,
    "attention_dropout": ZERO,
    "activation_dropout": ZERO,
    "dropout_input": ZERO,
    "layerdrop": ZERO,
    "modalities.image.prenet_dropout": ZERO,
    "modalities.image.local_grad_mult": (1,),
    # masks and decoder
    "modalities.image.mask_noise_std": USED,
    "modalities.image.keep_masked_pct": ZERO,
    "modalities.image.transformer_decoder": NO,
    "modalities.image.decoder.decoder_dim": USED,
    "modalities.image.decoder.decoder_groups": USED,
    "modalities.image.decoder.decoder_kernel": USED,
    "modalities.image.decoder.decoder_layers": USED,
    "modalities.image.decoder.input_dropout": ZERO,
    "modalities.image.decoder.add_positions_masked": NO,
    "modalities.image.decoder.add_positions_all": NO,
    "modalities.image.decoder.decoder_residual": (True,),
    "shared_decoder": (None, False),
}

# Batch of a GPU, over which the official utterance loss sums: clips, masks of each.
CLIPS, CLONES = 12, 16

MASKS = {
    "patch_size": PATCH,
    "mask_prob": 0.8,
    "mask_prob_adjust": 0.07,
    "mask_length": 5,
    "inverse_mask": True,
    "mask_dropout": 0.0,
}
_IMAGE: dict[str, Any] = {
    # only with a prenet, ALiBi or a transformer as decoder, which are refused
    **dict.fromkeys(("prenet_layerdrop", "start_drop_path_rate"), 0.0),
    "end_drop_path_rate": 0.0,
    **dict.fromkeys(("learned_alibi", "enc_dec_transformer"), False),
    **dict.fromkeys(("learned_alibi_scale", "learned_alibi_scale_per_head"), False),
    "learned_alibi_scale_per_layer": False,
    "alibi_max_pos": None,
    "alibi_scale": 1.0,
    "alibi_dims": 2,
    "alibi_distance": "manhattan",
    "decoder.projection_layers": 1,
    "decoder.projection_ratio": 2.0,
    # the masks, which are arguments of a model here
    **{name: value for name, value in MASKS.items() if name != "patch_size"},
    **dict.fromkeys(("add_masks", "remove_masks"), False),
    "mask_prob_min": None,
    "encoder_zero_mask": True,
    "mask_channel_prob": 0.0,
    "mask_channel_length": 64,
    # initialization
    "init_extra_token_zero": False,
    "input_size": 224,
}
# Schedules and logs, which the YAML file of a run decides, and what is never used.
IGNORED: dict[str, Rule] = {
    **{f"modalities.image.{name}": Ignored(value) for name, value in _IMAGE.items()},
    "modalities._name": Ignored(None),
    "ema_decay": Ignored(0.9998),
    "ema_end_decay": Ignored(0.99999),
    "ema_anneal_end_step": Ignored(100_000),
    "ema_same_dtype": Ignored(True),
    "log_norms": Ignored(True),
    "max_update": Ignored(400_000),
    "seed": Ignored(1),
    **dict.fromkeys(("skip_ema", "mae_init", "decoder_group"), Ignored(False)),
    **dict.fromkeys(("min_target_var", "min_pred_var"), Ignored(0.0)),
    # only with utterance_level
    "init_center_token_zero": Ignored(False),
    "center_exp": Ignored(0.9),
    "softmax_temperature_student": Ignored(0.1),
    "softmax_temperature_teacher": Ignored(0.05),
    # sizes that the weights have, and what only the official fine-tuning adds
    "modalities.image.num_alibi_heads": Ignored(),
    "modalities.image.model_depth": Ignored(),
    "modalities.image.target_length": Ignored(),
    "modalities.image.max_length": Ignored(),
    "drop_path_rate": Ignored(),
}
# Official prediction mode, an enum -> our pooling.
POOLINGS: dict[str | int, str] = {
    "MEAN_POOLING": "mean",
    "CLS_TOKEN": "cls",
    "LIN_SOFTMAX": "linear_softmax",
    **{1: "mean", 2: "cls", 3: "linear_softmax"},
}

# Of a fine-tuned model; the encoder's settings are below pretrained_model_args.
CLASSIFIER: dict[str, Rule] = {
    "_name": ("mae_image_classification",),
    "num_classes": USED,
    "prediction_mode": tuple(POOLINGS),
    "use_fc_norm": (True,),
    "norm_eps": (None, 1e-6),
    **dict.fromkeys(("model_path", "data"), Ignored("")),
    **dict.fromkeys(("no_pretrained_weights", "remove_alibi"), Ignored(False)),
    # training only
    **dict.fromkeys(("cutmix", "label_smoothing", "mixup_switch_prob"), Ignored(0.0)),
    **dict.fromkeys(("encoder_dropout", "post_mlp_drop"), Ignored(0.0)),
    **dict.fromkeys(("attention_dropout", "activation_dropout"), Ignored(0.0)),
    **dict.fromkeys(("dropout_input", "layerdrop"), Ignored(0.0)),
    **dict.fromkeys(("prenet_layerdrop", "prenet_dropout"), Ignored(0.0)),
    **dict.fromkeys(("no_decay_blocks", "audio_mae", "specaug"), Ignored(True)),
    "linear_classifier": Ignored(False),
    "mixup": Ignored(0.8),
    "mixup_prob": Ignored(0.9),
    "mixup_mode": Ignored("batch"),
    "drop_path_rate": Ignored(0.1),
    "layer_decay": Ignored(0.65),
    "freqm": Ignored(25),
    "timem": Ignored(200),
    "mask_ratio": Ignored(0.2),
    **dict.fromkeys(("esc50_eval", "spcv2_eval", "target_length"), Ignored()),
}


def written_values(rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Return the settings of a new file that do not depend on the model."""
    return {
        name: rule.written if isinstance(rule, Ignored) else rule[0]
        for name, rule in rules.items()
        if rule not in (USED, Ignored())
    }


def check_settings(
    settings: Mapping[str, Any],
    rules: Mapping[str, Rule],
    others: Mapping[str, Rule],
    path: str | Path,
) -> None:
    """Raise `CheckpointError` for a setting that this toolkit does not implement.

    Parameters
    ----------
    settings
        ``cfg.model``, nested mappings.
    rules
        What is checked.
    others
        What else may be there, whatever its value.
    path
        The file that the message names.
    """
    for name, value in flatten(settings):
        rule = rules.get(name) or others.get(name)
        if rule is None:
            shown = ascii(name)[1:-1][:80]
            raise CheckpointError(
                f"{path}: its setting model.{shown} ({_text(value)}) is not "
                "known (a modified EAT? its authors' code is needed)"
            )
        if rule == USED and not _is_number(value):
            raise CheckpointError(
                f"{path}: its setting model.{name} is {_text(value)}, not a usable "
                "number (save the configuration with its references resolved)"
            )
        if name in rules and isinstance(rule, tuple) and not _accepted(value, rule):
            values = " or ".join(str(item) for item in rule)
            raise CheckpointError(
                f"{path}: its setting model.{name} is {_text(value)}, this toolkit "
                f"implements {values} only (a modified EAT? use its authors' code)"
            )


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names, with dots, and values of nested settings."""
    for name, value in settings.items():
        # A name for each mapping, even if it is empty: many may be one and the same.
        if isinstance(value, Mapping) and value and prefix.count(".") < 8:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def plain_enum(value: Any) -> Any:
    """Return the name or number of an enum's member, which fairseq stores in many ways.

    As a word, ``Modality.IMAGE``, or as a pickled object with the name or the number.
    """
    arguments = getattr(value, "args", None)
    if isinstance(arguments, tuple) and len(arguments) == 1:
        value = arguments[0]
    return value.rpartition(".")[2] if isinstance(value, str) else value


def _accepted(value: Any, accepted: tuple[Any, ...]) -> bool:
    value = plain_enum(value)
    if isinstance(value, str) and value.startswith("${"):  # an unresolved reference
        return False
    return any(value == item for item in accepted)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float, bool) and abs(value) < 1e9  # nor NaN


def _text(value: Any) -> str:
    return excerpt(plain_enum(value))
