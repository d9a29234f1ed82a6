"""Build models from checkpoints: our folders, fairseq files, Hugging Face folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from eat.audio.frontend import LogMel
from eat.errors import CheckpointError
from eat.interop.config_schema import check_config, check_section
from eat.interop.fairseq import read_fairseq
from eat.interop.file_kinds import is_folder
from eat.interop.folders import read_config
from eat.interop.hugging_face import read_hugging_face
from eat.interop.labels import AUDIOSET_CLASSES, audioset_names
from eat.interop.pretrained import check_fit, load_strictly, open_model
from eat.interop.stored import StoredTensor, read_floats
from eat.model.classifier import EATClassifier
from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.model.patching import PATCH
from eat.pretraining.model import EATForPreTraining, EATStudent
from eat.pretraining.teacher import EMATeacher

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint, from which each part of the model can be built.

    The config holds sizes and options of the parts, `stored` the weights under this
    toolkit's names, which are read when a part is built. Errors begin with the path; a
    part that the checkpoint does not have, or that does not fit it, raises
    `CheckpointError`.
    """

    path: str | Path
    config: dict[str, Any]
    stored: dict[str, StoredTensor]
    unsupported: str | None = None  # why pre-training cannot be continued from it

    @classmethod
    def read(cls, path: str | Path) -> Checkpoint:
        """Read a checkpoint; raises `CheckpointError` if it is missing or corrupt.

        It is a model folder of this toolkit, an official fairseq ``.pt`` file, or a
        downloaded Hugging Face folder of the authors.
        """
        unsupported = None
        if is_folder(path):
            config = read_config(path)
            if "kind" not in config and {"architectures", "auto_map"} & config.keys():
                config, stored = read_hugging_face(path, config)
            else:
                config, stored = open_model(path, config)
                unsupported = _other_objective(config, path)
        else:
            config, stored, unsupported = read_fairseq(path)
        _check_shapes(config, stored, path)
        return cls(path, config, stored, unsupported)

    def state(self, prefix: str = "") -> dict[str, Tensor]:
        """Read the weights, in fp32, whose names begin with a prefix, without it."""
        stored = {k: v for k, v in self.stored.items() if k.startswith(prefix)}
        state = read_floats(stored, self.path)
        return {name.removeprefix(prefix): value for name, value in state.items()}

    @property
    def kind(self) -> str:
        """``pretraining``, ``classifier``, or ``encoder`` (a Hugging Face folder)."""
        return self.config["kind"]

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names in the order of the logits; None if they are not known.

        A classifier of 527 classes without names is one of AudioSet, in its order.
        """
        labels = self.config.get("labels")
        if labels is None and self.config.get("num_classes") == AUDIOSET_CLASSES:
            return audioset_names()
        return None if labels is None else tuple(labels)

    @property
    def multi_label(self) -> bool:
        """Whether a clip may have several classes: scores are sigmoids of the logits.

        Otherwise they are their softmax. Models of version 0.1 do not say it: those of
        AudioSet's 527 classes have several.
        """
        audioset = self.config.get("num_classes") == AUDIOSET_CLASSES
        return bool(self.config.get("multi_label", audioset))

    @property
    def mask_padding(self) -> bool:
        """Whether it is a classifier that was trained with masked padding."""
        return self.config.get("mask_padding", False)

    def require_no_mask(self, target: str) -> None:
        """Raise `CheckpointError` if it masks the padding, which `target` cannot."""
        if self.mask_padding:
            raise CheckpointError(
                f"{self.path}: was fine-tuned with masked padding, but {target} is "
                "given no lengths of clips (fine-tune with --mask_padding False)"
            )

    def frontend(self, **overrides: float) -> LogMel:
        """Build the front end; `overrides` replace `mean`, `std` or `num_frames`."""
        options = {**self.config.get("frontend", {}), **overrides}
        # Callers compare another number of frames with what the encoder supports.
        frames = {"num_frames": PATCH} if "num_frames" in overrides else {}
        check_section("frontend", options | frames, self.path)
        return LogMel(**options)

    def encoder(self, weights: str = "student") -> EATEncoder:
        """Build the student's or the teacher's encoder, in evaluation mode."""
        if weights not in ("student", "teacher"):
            raise CheckpointError(
                f"{self.path}: weights '{weights}': choose 'student' or 'teacher'"
            )
        if self.kind != "pretraining" and weights == "teacher":
            raise CheckpointError(f"{self.path}: this {self.kind} has no teacher")
        prefix = f"{weights}.encoder." if self.kind == "pretraining" else "encoder."
        with _without_memory():
            encoder = EATEncoder(**self.config["encoder"])
        return self._filled(encoder, prefix).eval()

    def classifier(self) -> EATClassifier:
        """Build the fine-tuned classifier, in evaluation mode."""
        self._require_kind("classifier")
        with _without_memory():
            classifier = build_classifier(self.config)
        return self._filled(classifier).eval()

    def pretraining(self) -> EATForPreTraining:
        """Build student, decoder and teacher."""
        self._require_kind("pretraining")
        if self.unsupported:
            raise CheckpointError(self.unsupported)
        with _without_memory():
            model = build_pretraining(self.config)
        return self._filled(model)

    def _filled(self, module: Module, prefix: str = "") -> Module:
        """Give a module without memory the weights that the file has for it."""
        state = self.state(prefix)
        check_fit(module, state, self.path)
        module.load_state_dict(state, assign=True)
        return module

    def _require_kind(self, kind: str) -> None:
        if self.kind != kind:
            article = "an" if self.kind == "encoder" else "a"
            raise CheckpointError(
                f"{self.path}: {article} {self.kind} model, not a {kind} model"
            )


def build_classifier(config: Mapping[str, Any]) -> EATClassifier:
    """Build a classifier of these sizes."""
    encoder = EATEncoder(**config["encoder"])
    mask_padding = config.get("mask_padding", False)  # the official ones have none
    return EATClassifier(
        encoder, config["num_classes"], config["pooling"], mask_padding
    )


def build_pretraining(config: Mapping[str, Any]) -> EATForPreTraining:
    """Build student, decoder and teacher of these sizes."""
    encoder = EATEncoder(**config["encoder"])
    decoder = CNNDecoder(**config["decoder"])
    student = EATStudent(encoder, decoder, **config.get("student", {}))
    teacher = EMATeacher(encoder, **config.get("teacher", {}))
    return EATForPreTraining(student, teacher, config["utterance_weight"])


def _other_objective(config: Mapping[str, Any], path: str | Path) -> str | None:
    """Say why a decoder does not predict the teacher's features; None if it does."""
    width = config.get("decoder", {}).get("output_dim")
    if width in (None, config["encoder"]["dim"]):
        return None
    return (
        f"{path}: its decoder predicts {width} values per patch, not the teacher's "
        f"{config['encoder']['dim']} features (it was pre-trained with another "
        "objective: load its encoder)"
    )


@contextmanager
def _without_memory() -> Iterator[None]:
    """Build modules whose parameters have shapes only; tables of constants are real."""
    with torch.device("meta"), _WithoutRandomNumbers():
        yield


class _WithoutRandomNumbers(TorchFunctionMode):
    """Avoids what PyTorch does in Python for the meta device, after slow imports."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Return tensors of the right shape."""
        if func is torch.randn:
            func = torch.empty
        if func is torch.arange:
            return func(*args, **{**(kwargs or {}), "device": "cpu"})
        if func in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _check_shapes(
    config: Mapping[str, Any], stored: Mapping[str, StoredTensor], path: str | Path
) -> None:
    """Compare the config with the weights' header, before memory is spent on either."""
    check_config(config, path)
    for part, blocks in (("encoder", "blocks"), ("decoder", "convolutions")):
        # Modules take time even without memory.
        pattern = re.compile(rf"(?:.*\.)?{part}\.{blocks}\.(\d+)\.")
        found = {match[1] for name in stored if (match := pattern.match(name))}
        if part in config and len(found) != config[part]["depth"]:
            raise CheckpointError(
                f"{path}: {part}.depth is {config[part]['depth']}, but the weights "
                f"have {len(found)} layers (config and weights of different models?)"
            )
    with _without_memory():
        module: nn.Module
        if config["kind"] == "pretraining":
            module = build_pretraining(config)
        elif config["kind"] == "classifier":
            module = build_classifier(config)
        else:
            module = nn.ModuleDict({"encoder": EATEncoder(**config["encoder"])})
    check_fit(module, stored, path)


def load_encoder(path: str | Path, weights: str = "student") -> EATEncoder:
    """Load the encoder of a pre-trained or fine-tuned checkpoint, in evaluation mode.

    `weights` is ``student`` (which the paper fine-tunes) or ``teacher``; a fine-tuned
    checkpoint has only one encoder, its ``student``. Raises `CheckpointError` if the
    checkpoint is missing, corrupt or has no such weights.
    """
    return Checkpoint.read(path).encoder(weights)


def load_frontend(path: str | Path) -> LogMel:
    """Load the front end, with the input length and normalization of a checkpoint."""
    return Checkpoint.read(path).frontend()


def load_classifier(path: str | Path) -> EATClassifier:
    """Load a fine-tuned classifier in evaluation mode: ``clf(spec)`` gives logits."""
    return Checkpoint.read(path).classifier()


def load_pretraining(path: str | Path) -> EATForPreTraining:
    """Load student, decoder and teacher of a pre-training checkpoint."""
    return Checkpoint.read(path).pretraining()


def initialize_encoder(encoder: EATEncoder, path: str | Path) -> None:
    """Load the student's weights of a checkpoint into an encoder, for fine-tuning.

    Raises `CheckpointError` if the checkpoint's encoder differs in size or options.
    """
    loaded = load_encoder(path)
    for option, value in encoder.config.items():
        # The table of fixed positions may be of another length.
        if option != "max_frames" and loaded.config[option] != value:
            raise CheckpointError(
                f"{path}: its encoder has {option} {loaded.config[option]}, the YAML "
                f"file {value} (use the settings of pre-training)"
            )
    load_strictly(encoder, loaded.state_dict(), path)


def read_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the config and the state of a checkpoint, see :meth:`Checkpoint.read`."""
    checkpoint = Checkpoint.read(path)
    return checkpoint.config, checkpoint.state()
