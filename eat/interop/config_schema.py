"""What a model's ``config.json`` may contain: names, types and ranges."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from eat.errors import CheckpointError
from eat.model.classifier import POOLINGS
from eat.model.patching import PATCH
from eat.pretraining.teacher import UTTERANCE_TARGETS

MAX_PATCHES = 2**15  # rows of the table of positions: 11 minutes


class Whole(NamedTuple):
    """A whole number, a multiple of `step`."""

    least: int
    most: int
    step: int = 1

    def accepts(self, value: Any) -> bool:
        """Return whether this is such a number; `True` is none."""
        return (
            type(value) is int
            and self.least <= value <= self.most
            and value % self.step == 0
        )

    def __str__(self) -> str:
        multiple = f", a multiple of {self.step}" if self.step > 1 else ""
        return f"a whole number from {self.least} to {self.most}{multiple}"


class Real(NamedTuple):
    """A number."""

    least: float
    most: float

    def accepts(self, value: Any) -> bool:
        """Return whether this is such a number; NaN is in no range."""
        return type(value) in (int, float) and self.least <= value <= self.most

    def __str__(self) -> str:
        return f"a number from {self.least:g} to {self.most:g}"


class Choice(NamedTuple):
    """One of several words."""

    words: tuple[str, ...]

    def accepts(self, value: Any) -> bool:
        """Return whether this is one of them."""
        return isinstance(value, str) and value in self.words

    def __str__(self) -> str:
        return " or ".join(f"'{word}'" for word in self.words)


class Flag(NamedTuple):
    """True or false."""

    def accepts(self, value: Any) -> bool:
        """Return whether this is one of them; numbers are not."""
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "true or false"


class Labels(NamedTuple):
    """Names of classes."""

    def accepts(self, value: Any) -> bool:
        """Return whether these are names."""
        return isinstance(value, list) and all(isinstance(name, str) for name in value)

    def __str__(self) -> str:
        return "a list of names"


class Optional(NamedTuple):
    """A value that may be null."""

    inner: Rule

    def accepts(self, value: Any) -> bool:
        """Return whether this is null or such a value."""
        return value is None or self.inner.accepts(value)

    def __str__(self) -> str:
        return f"null or {self.inner}"


Rule = Whole | Real | Choice | Flag | Labels | Optional
WIDTH = Whole(4, 2**14, 4)
DEPTH = Whole(1, 256)

Section = dict[str, Rule]
ENCODER: Section = {
    "dim": WIDTH,
    "depth": DEPTH,
    "num_heads": Whole(1, 2**10),
    "drop_path": Real(0, 1),
    "max_frames": Whole(PATCH, MAX_PATCHES * PATCH),
    "num_mels": Whole(PATCH, 2**10, PATCH),
    "position_scale": Real(-1e3, 1e3),
}
DECODER: Section = {
    "dim": Whole(1, 2**14),
    "depth": DEPTH,
    "kernel": Whole(1, 63),
    "groups": Whole(1, 2**14),
    "input_dim": Optional(WIDTH),
    "output_dim": Optional(Whole(1, 2**14)),
}
STUDENT: Section = {"mask_noise_std": Real(0, 1e6)}
TEACHER: Section = {
    "center_momentum": Optional(Real(0, 1)),
    "num_patches": Optional(Whole(1, MAX_PATCHES)),
    "average_top_k": Optional(DEPTH),
    "utterance_target": Choice(UTTERANCE_TARGETS),
}
FRONTEND: Section = {
    "mean": Real(-1e6, 1e6),
    "std": Real(1e-6, 1e6),
    "num_frames": Whole(1, MAX_PATCHES * PATCH),
}
TOP: Section = {
    "kind": Choice(("pretraining", "classifier", "encoder")),
    "step": Optional(Whole(0, 2**63)),
    "labels": Optional(Labels()),
    "multi_label": Flag(),
    "utterance_weight": Real(0, 1e9),
    "num_classes": Whole(1, 2**20),
    "pooling": Choice(POOLINGS),
    "mask_padding": Flag(),
}
SECTIONS = {
    "encoder": ENCODER,
    "decoder": DECODER,
    "student": STUDENT,
    "teacher": TEACHER,
    "frontend": FRONTEND,
}
# Kind of model -> what its config must contain; a section, these of its keys.
REQUIRED = {
    "encoder": ("encoder",),
    "classifier": ("encoder", "num_classes", "pooling"),
    "pretraining": ("encoder", "decoder", "utterance_weight"),
}
REQUIRED_KEYS = {
    "encoder": ("dim", "depth", "num_heads"),
    "decoder": ("dim", "depth", "kernel", "groups"),
    "frontend": ("mean", "std", "num_frames"),
}


def check_config(config: Mapping[str, Any], source: str | Path) -> None:
    """Raise `CheckpointError` for the first key that is missing, unknown or wrong.

    Parameters
    ----------
    config
        Kind, sizes and options of a model.
    source
        The file that the message names.
    """
    if "kind" not in config:
        theirs = config.get("model_type")
        model = f"a '{ascii(theirs)[1:-1][:40]}' model" if theirs else "a model"
        raise CheckpointError(f"{source}: has no 'kind' ({model} of another program)")
    for name, value in config.items():
        if name in SECTIONS:
            check_section(name, value, source)
        elif name in TOP:
            _check_value(name, TOP[name], value, source)
        else:
            _unknown(name, (*TOP, *SECTIONS), source)
    for name in REQUIRED[config["kind"]]:
        if name not in config:
            raise CheckpointError(
                f"{source}: has no '{name}', which a {config['kind']} model needs (was "
                "it edited?)"
            )
    _check_together(config, source)


def check_section(name: str, section: Any, source: str | Path) -> None:
    """Check one section of the config, ``encoder`` for example."""
    if not isinstance(section, dict):
        _wrong(name, section, "an object", source)
    for key, value in section.items():
        if key not in SECTIONS[name]:
            _unknown(f"{name}.{key}", tuple(SECTIONS[name]), source)
        _check_value(f"{name}.{key}", SECTIONS[name][key], value, source)
    for key in REQUIRED_KEYS.get(name, ()):
        if key not in section:
            raise CheckpointError(f"{source}: {name} has no '{key}' (was it edited?)")


def _check_value(name: str, rule: Rule, value: Any, source: str | Path) -> None:
    if not rule.accepts(value):
        _wrong(name, value, str(rule), source)


def _check_together(config: Mapping[str, Any], source: str | Path) -> None:
    """Check what depends on two keys."""
    encoder = config["encoder"]
    dim, heads = encoder["dim"], encoder["num_heads"]
    if dim % heads:
        _wrong("encoder.num_heads", heads, f"a divisor of encoder.dim, {dim}", source)
    mels = encoder.get("num_mels", 128) // PATCH
    if encoder.get("max_frames", 0) // PATCH * mels > MAX_PATCHES:
        most = f"at most {MAX_PATCHES // mels * PATCH}"
        _wrong("encoder.max_frames", encoder["max_frames"], most, source)
    teacher = config.get("teacher", {})
    momentum, patches = (teacher.get(k) for k in ("center_momentum", "num_patches"))
    if momentum is not None and patches is None:
        _wrong("teacher.num_patches", None, "a number, for centering", source)
    if momentum is None and teacher.get("utterance_target") == "clip":
        _wrong("teacher.center_momentum", None, "a number, for centering", source)
    top_k, depth = teacher.get("average_top_k"), encoder["depth"]
    if top_k is not None and top_k > depth:
        _wrong(
            "teacher.average_top_k", top_k, f"at most encoder.depth, {depth}", source
        )
    labels, classes = config.get("labels"), config.get("num_classes")
    if labels is not None and classes is not None and len(labels) != classes:
        _wrong("num_classes", classes, f"that of 'labels', {len(labels)}", source)
    if "decoder" in config:
        decoder = config["decoder"]
        groups, width = decoder["groups"], decoder["dim"]
        outer = decoder.get("input_dim") or width
        if width % groups or outer % groups:
            common = f"a divisor of the decoder's widths, {width} and {outer}"
            _wrong("decoder.groups", groups, common, source)
        if decoder["kernel"] % 2 == 0:
            _wrong("decoder.kernel", decoder["kernel"], "an odd number", source)
        if outer != dim:
            _wrong("decoder.input_dim", outer, f"the encoder's width, {dim}", source)


def _wrong(name: str, value: Any, accepted: str, source: str | Path) -> None:
    raise CheckpointError(f"{source}: {name} is {excerpt(value)} (expected {accepted})")


def excerpt(value: Any) -> str:
    """Return a value from a file for a message: short, however large the value is."""
    shortened = reprlib.Repr()
    shortened.maxlevel, shortened.maxstring = 2, 60
    try:
        text = shortened.repr(value)
    except ValueError:  # Python does not print integers of thousands of digits
        return "a huge number"
    return text if len(text) <= 60 else text[:57] + "..."


def _unknown(name: str, known: tuple[str, ...], source: str | Path) -> None:
    own = name.rpartition(".")[2]
    raise CheckpointError(
        f"{source}: has the unknown key '{ascii(own)[1:-1][:60]}' in "
        f"'{ascii(name)[1:-1][:80]}' (known: {', '.join(known)}; was it edited, or "
        "written by a newer version?)"
    )
