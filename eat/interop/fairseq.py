"""Official EAT checkpoints (fairseq ``.pt``), read without fairseq.

A file's ``model`` entry contains the student's weights and, after pre-training, the
teacher's under ``_ema``; ``cfg`` is the configuration used in training. Nothing in a
file is executed, see :mod:`eat.interop.torch_pickle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eat.errors import CheckpointError
from eat.interop.fairseq_settings import (
    CLASSIFIER,
    CLIPS,
    ENCODER,
    IGNORED,
    OBJECTIVE,
    POOLINGS,
    check_settings,
    plain_enum,
)
from eat.interop.fairseq_weights import (
    MODALITY,
    encoder_config,
    position_scale,
    split_head,
    student_state,
)
from eat.interop.file_kinds import what_model
from eat.interop.labels import audioset_by_id
from eat.interop.stored import StoredTensor, without_wrappers
from eat.interop.torch_file import TorchFile

# Mean and standard deviation of the log-mel, as in the official data loader.
NORMALIZATION = {
    "AudioSet": (-4.268, 4.569),
    "ESC-50": (-6.627, 5.359),
    "Speech Commands V2": (-6.846, 5.565),
}

# In `extra_state` of our own files: our config, of which `cfg` cannot hold all.
OWN_CONFIG = "eat_config"


def read_fairseq(
    path: str | Path,
) -> tuple[dict[str, Any], dict[str, StoredTensor], str | None]:
    """Read an official checkpoint's config, and the place of its weights, in our terms.

    The third value is the reason why pre-training cannot be continued from it, if there
    is one. Raises `CheckpointError` if the file is not an official EAT checkpoint, or
    cannot be read safely.
    """
    file = TorchFile(path)
    top = file.content
    if not isinstance(top, Mapping):
        kind = getattr(top, "name", "") or type(top).__name__.replace("Record", "")
        raise CheckpointError(
            f"{path}: contains an object of type {kind}, not a mapping (give a "
            "checkpoint as fairseq wrote it)"
        )
    official, settings = top.get("model"), file.mapping(top.get("cfg"))
    if not isinstance(official, Mapping) or not settings:
        raise CheckpointError(_not_fairseq(top, path))
    weights = without_wrappers(file.tensors(official), path)
    model = file.mapping(settings.get("model"))
    try:
        unsupported = None
        if "head.weight" in weights:
            config, state = _convert_classifier(weights, model, path)
            if labels := _labels(file.mapping(top.get("task_state")), config):
                config["labels"] = labels
        else:
            teacher = without_wrappers(file.tensors(official["_ema"]), path)
            config, state = _convert_pretraining(weights, teacher, model, path)
            unsupported = _unsupported(model, path)
        config["frontend"] = _frontend_config(settings["task"])
        if config["kind"] == "classifier":
            config["multi_label"] = not _is_single_label(settings["task"])
    except KeyError as error:
        known = any(MODALITY in name for name in weights)
        kind = "a fairseq checkpoint, but incomplete"
        if not known:
            kind = what_model(weights, model)
        raise CheckpointError(f"{path}: has no {error} ({kind})") from error
    except CheckpointError:
        raise
    except (TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{path}: its settings (cfg) are malformed ({error})"
        ) from error
    own = file.mapping(top.get("extra_state")).get(OWN_CONFIG)
    return config | file.mapping(own), state, unsupported


def _not_fairseq(top: Mapping, path: str | Path) -> str:
    """Say what a file without the entries of fairseq contains instead."""
    missing = " and ".join(f"'{key}'" for key in ("model", "cfg") if key not in top)
    wrapped = next((k for k in ("state_dict", "model", "module") if k in top), None)
    inner = top[wrapped] if wrapped else top
    names = list(inner) if isinstance(inner, Mapping) else list(top)
    return (
        f"{path}: no {missing or 'usable model and cfg'} entry: not a checkpoint of "
        f"fairseq ({what_model(names)})"
    )


def _convert_pretraining(
    official: Mapping[str, StoredTensor],
    teacher: Mapping[str, StoredTensor],
    settings: dict[str, Any],
    path: str | Path,
) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    check_settings(settings, ENCODER, OBJECTIVE | IGNORED, path)
    image = settings["modalities"]["image"]
    decoder = image["decoder"]
    dim, width = settings["embed_dim"], decoder["decoder_dim"]
    clones = settings["clone_batch"]
    if type(clones) is not int or clones < 1:
        raise TypeError(f"model.clone_batch is {clones}")
    parts = {"student": official, "teacher": teacher}
    state = {
        f"{part}.{name}": tensor
        for part, weights in parts.items()
        for name, tensor in student_state(weights, path).items()
    }
    scales = {position_scale(weights) for weights in parts.values()}
    if len(scales) > 1:
        raise CheckpointError(
            f"{path}: the positions of student and teacher are scaled differently (was "
            "it trained with a modified position encoder?)"
        )
    config = {
        "kind": "pretraining",
        "encoder": _encoder_config(official, settings, path),
        "decoder": {
            "dim": width,
            "depth": decoder["decoder_layers"],
            "kernel": decoder["decoder_kernel"],
            "groups": decoder["decoder_groups"],
            "input_dim": None if width == dim else dim,
        },
        "student": {"mask_noise_std": image["mask_noise_std"]},
        "teacher": {"average_top_k": _top_k(settings)},
        # The official utterance loss is a sum over the batch of a GPU.
        "utterance_weight": settings["cls_loss"] * CLIPS * clones,
    }
    return config, state


def _top_k(settings: Mapping[str, Any]) -> int | None:
    """Return the number of blocks whose average is the target; None for all."""
    layers, depth = settings["average_top_k_layers"], settings["depth"]
    return None if layers >= depth else layers


def _unsupported(settings: dict[str, Any], path: str | Path) -> str | None:
    try:
        check_settings(settings, OBJECTIVE, ENCODER | IGNORED, path)
    except CheckpointError as error:
        return str(error)
    return None


def _convert_classifier(
    official: Mapping[str, StoredTensor], settings: dict[str, Any], path: str | Path
) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    own = {k: value for k, value in settings.items() if k != "pretrained_model_args"}
    check_settings(own, CLASSIFIER, {}, path)
    pretraining = settings["pretrained_model_args"]["model"]
    check_settings(pretraining, ENCODER, OBJECTIVE | IGNORED, path)
    inner, head = split_head(official)
    state = student_state(inner, path) | head
    config = {
        "kind": "classifier",
        "encoder": _encoder_config(inner, pretraining, path),
        "num_classes": settings["num_classes"],
        "pooling": POOLINGS[plain_enum(settings["prediction_mode"])],
    }
    return config, state


def _labels(task_state: dict[str, Any], config: Mapping[str, Any]) -> list[str] | None:
    """Return the names of the classes; the file has their ids, each with a number."""
    numbers = task_state.get("labels")
    if not isinstance(numbers, dict):
        return None
    names = {number: name for name, number in numbers.items() if isinstance(name, str)}
    wanted = [str(number) for number in range(config["num_classes"])]
    if set(wanted) != names.keys():
        return None
    return [audioset_by_id().get(names[n], names[n]) for n in wanted]


def _encoder_config(
    official: Mapping[str, StoredTensor], settings: Mapping[str, Any], path: str | Path
) -> dict[str, Any]:
    dim = settings["embed_dim"]
    patches = settings["modalities"]["image"].get("embed_dim", dim)
    if patches != dim:
        raise CheckpointError(
            f"{path}: its setting model.modalities.image.embed_dim is {patches}, this "
            f"toolkit implements that of the model only, {dim}"
        )
    return encoder_config(official, dim, settings["depth"], settings["num_heads"])


def _frontend_config(task: Mapping) -> dict:
    """Return the constants of the corpus that the task's flags name."""
    speech = "Speech Commands V2" if task["spcv2_eval"] else "AudioSet"
    mean, std = NORMALIZATION["ESC-50" if task["esc50_eval"] else speech]
    return {"mean": mean, "std": std, "num_frames": task["target_length"]}


def _is_single_label(task: Mapping) -> bool:
    """Return whether each clip of the corpus has one label, as all but AudioSet's."""
    return bool(task["esc50_eval"] or task["spcv2_eval"])
