"""The settings (`cfg`) of a file for the official code: every key of its own files.

A setting that :mod:`eat.interop.fairseq_settings` checks has the value which this
toolkit implements. What only training reads, such as schedules and masks, is that of
the official configuration for AudioSet: a run of the official code has its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from eat.interop.fairseq_settings import ENCODER, OBJECTIVE, POOLINGS
from eat.model.patching import PATCH

CLIPS, CLONES = 12, 16  # of a GPU's batch, over which the official utterance loss sums

MASKS = {
    "patch_size": PATCH,
    "mask_prob": 0.8,
    "mask_prob_adjust": 0.07,
    "mask_length": 5,
    "inverse_mask": True,
    "mask_dropout": 0.0,
}
IMAGE: dict[str, Any] = {
    **dict.fromkeys(("learned_alibi", "enc_dec_transformer", "add_masks"), False),
    **dict.fromkeys(("learned_alibi_scale", "learned_alibi_scale_per_head"), False),
    **dict.fromkeys(("learned_alibi_scale_per_layer", "remove_masks"), False),
    **dict.fromkeys(("prenet_layerdrop", "start_drop_path_rate"), 0.0),
    **dict.fromkeys(("end_drop_path_rate", "mask_channel_prob"), 0.0),
    **dict.fromkeys(("alibi_max_pos", "mask_prob_min"), None),
    **MASKS,
    "init_extra_token_zero": False,
    "encoder_zero_mask": True,
    "mask_channel_length": 64,
    "alibi_scale": 1.0,
    "alibi_dims": 2,
    "alibi_distance": "manhattan",
    "input_size": 224,
    "decoder.projection_layers": 1,
    "decoder.projection_ratio": 2.0,
}
MODEL: dict[str, Any] = {
    **{
        name: rule[0]
        for name, rule in (ENCODER | OBJECTIVE).items()
        if isinstance(rule, tuple)
    },
    **{f"modalities.image.{name}": value for name, value in IMAGE.items()},
    **dict.fromkeys(("modalities._name", "shared_decoder"), None),
    **dict.fromkeys(("skip_ema", "mae_init", "decoder_group"), False),
    **dict.fromkeys(("min_target_var", "min_pred_var"), 0.0),
    "ema_decay": 0.9998,
    "ema_end_decay": 0.99999,
    "ema_anneal_end_step": 100_000,
    "ema_same_dtype": True,
    "log_norms": True,
    "max_update": 400_000,
    "seed": 1,
    "init_center_token_zero": False,
    "center_exp": 0.9,
    "softmax_temperature_student": 0.1,
    "softmax_temperature_teacher": 0.05,
}
CLASSIFIER: dict[str, Any] = {
    "_name": "mae_image_classification",
    "model_path": "",
    "data": "",
    "norm_eps": None,
    **dict.fromkeys(("use_fc_norm", "no_decay_blocks", "audio_mae", "specaug"), True),
    **dict.fromkeys(("no_pretrained_weights", "linear_classifier"), False),
    "remove_alibi": False,
    **dict.fromkeys(("cutmix", "label_smoothing", "mixup_switch_prob"), 0.0),
    **dict.fromkeys(("encoder_dropout", "post_mlp_drop", "attention_dropout"), 0.0),
    **dict.fromkeys(("activation_dropout", "dropout_input", "layerdrop"), 0.0),
    **dict.fromkeys(("prenet_layerdrop", "prenet_dropout"), 0.0),
    "mixup": 0.8,
    "mixup_prob": 0.9,
    "mixup_mode": "batch",
    "drop_path_rate": 0.1,
    "layer_decay": 0.65,
    "freqm": 25,
    "timem": 200,
    "mask_ratio": 0.2,
}
TASK: dict[str, Any] = {
    "_name": "mae_image_pretraining",
    "data": "",
    **dict.fromkeys(("multi_data", "local_cache_path"), None),
    **dict.fromkeys(("beit_transforms", "target_transform", "no_transform"), False),
    **dict.fromkeys(("h5_format", "flexible_mask", "AS2M_finetune"), False),
    **dict.fromkeys(("spcv1_finetune", "roll_aug", "noise", "is_finetuning"), False),
    **dict.fromkeys(("rebuild_batches", "audio_mae", "downsr_16hz"), True),
    "input_size": 224,
    "key": "source",
    "precompute_mask_config": {
        **MASKS,
        **dict.fromkeys(("expand_adjacent", "non_overlapping"), False),
        "clone_batch": CLONES,
    },
    "subsample": 1.0,
    "seed": 1,
    "dataset_type": "imagefolder",
    "weights_file": "",
    "num_samples": 200_000,
}


def pretraining_cfg(config: Mapping[str, Any], corpus: Mapping[str, Any]) -> dict:
    """Return the `cfg` of a pre-trained model.

    Parameters
    ----------
    config
        Our config; without a decoder, which the official code builds in any case, that
        has some size.
    corpus
        The settings that depend on the corpus: ``target_length`` and two flags.
    """
    encoder = config["encoder"]
    dim, depth, heads = (encoder[name] for name in ("dim", "depth", "num_heads"))
    any_size = {"dim": dim, "depth": 1, "kernel": 3, "groups": math.gcd(dim, 16)}
    decoder = config.get("decoder", any_size)
    image = {
        "embed_dim": dim,
        "max_length": encoder["max_frames"] // PATCH,
        "target_length": corpus["target_length"],
        "model_depth": depth,
        "num_alibi_heads": heads,
        "mask_noise_std": config.get("student", {}).get("mask_noise_std", 0.01),
        "decoder.decoder_dim": decoder["dim"],
        "decoder.decoder_groups": decoder["groups"],
        "decoder.decoder_kernel": decoder["kernel"],
        "decoder.decoder_layers": decoder["depth"],
    }
    model = MODEL | {
        "embed_dim": dim,
        "depth": depth,
        "num_heads": heads,
        "average_top_k_layers": config.get("teacher", {}).get("average_top_k") or depth,
        "clone_batch": CLONES,
        "cls_loss": config.get("utterance_weight", CLIPS * CLONES) / (CLIPS * CLONES),
        **{f"modalities.image.{name}": value for name, value in image.items()},
    }
    return {
        "_name": None,
        "model": _nest(model),
        "task": {**TASK, **corpus},
        "criterion": {"_name": "model"},
        "lr_scheduler": {"_name": "pass_through"},
    }


def classifier_cfg(config: Mapping[str, Any], corpus: Mapping[str, Any]) -> dict:
    """Return the `cfg` of a fine-tuned model, which contains one of pre-training."""
    pretraining = pretraining_cfg(config, corpus)
    modes = {ours: mode for mode, ours in POOLINGS.items() if isinstance(mode, str)}
    model = CLASSIFIER | {
        "num_classes": config["num_classes"],
        "prediction_mode": modes[config["pooling"]],
        "pretrained_model_args": pretraining,
    }
    task = TASK | {
        "_name": "mae_image_classification",
        "key": "imgs",
        "precompute_mask_config": None,
        "label_descriptors": "label_descriptors.csv",
        "labels": "lbl",
    }
    return {
        **pretraining,
        "model": {**model, **corpus},
        "task": {**task, **corpus},
    }


def _nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings whose names have dots as nested mappings."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        *folders, last = name.split(".")
        inner = result
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = value
    return result
