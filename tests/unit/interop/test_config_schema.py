"""A malformed config is one line; nothing is built before the weights are compared."""

import copy
import json
import struct
import time
import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import eat
from eat.errors import CheckpointError
from eat.interop.pretrained import save_model
from eat.model.classifier import EATClassifier
from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.pretraining.model import EATForPreTraining, EATStudent
from eat.pretraining.teacher import EMATeacher

FRONTEND = {"mean": -4.268, "std": 4.569, "num_frames": 32}
LOADS = {"classifier": eat.load_classifier, "pretraining": eat.load_pretraining}


def save(folder):
    """A model folder of each kind; returns their configs."""
    encoder = EATEncoder(dim=8, depth=2, num_heads=2, max_frames=32)
    classifier = EATClassifier(encoder, 3)
    student = EATStudent(encoder, CNNDecoder(dim=8, depth=1, groups=2))
    model = EATForPreTraining(student, EMATeacher(encoder))
    configs = {
        "classifier": {**classifier.config, "labels": ["a", "b", "c"]},
        "pretraining": {
            "encoder": encoder.config,
            "decoder": student.decoder.config,
            "student": {"mask_noise_std": 0.01},
            "teacher": model.teacher.config,
            "utterance_weight": 192.0,
        },
    }
    for kind, module in (("classifier", classifier), ("pretraining", model)):
        configs[kind] |= {"kind": kind, "frontend": FRONTEND, "step": 7}
        save_model(folder / kind, configs[kind], module)
    return configs


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder of all models, and their configs."""
    folder = tmp_path_factory.mktemp("models")
    return folder, save(folder)


@pytest.fixture
def malformed(refusal, models):
    """Return the refusal of a config, which is then as it was."""

    def refuse(kind, content):
        folder, configs = models
        path = folder / kind / "config.json"
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        path.write_bytes(content)
        try:
            return refusal(LOADS[kind], folder / kind)
        finally:
            path.write_text(json.dumps(configs[kind]))

    return refuse


def paths(config, prefix=()):
    for name, value in config.items():
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from paths(value, (*prefix, name))


def replace(config, path, value):
    config = copy.deepcopy(config)
    section = config
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = value
    return config


@pytest.mark.parametrize("kind", LOADS)
@pytest.mark.parametrize("value", ["12", True, {}, [], [1], -(10**30), 10**30, 1e308])
def test_a_wrong_value_is_named(malformed, models, kind, value):
    for path in paths(models[1][kind]):
        if path in (("teacher",), ("student",)) and value == {}:
            continue  # all of its options have defaults
        if path == ("mask_padding",) and value is True:
            continue
        message = malformed(kind, replace(models[1][kind], path, value))
        assert path[-1] in message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("encoder", "dim"), 12),
        (("encoder", "dim"), 8.0),
        (("encoder", "dim"), 2**14),
        (("encoder", "dim"), None),
        (("encoder", "depth"), 0),
        (("encoder", "depth"), 256),
        (("encoder", "num_heads"), 3),
        (("encoder", "num_heads"), 0),
        (("encoder", "max_frames"), 15),
        (("encoder", "max_frames"), 2**20),
        (("encoder", "num_mels"), 100),
        (("encoder", "position_scale"), None),
        (("num_classes",), 4),
        (("num_classes",), 0),
        (("pooling",), "max"),
        (("labels",), ["a", "b"]),
        (("labels",), ["a", "b", 3]),
        (("labels",), "abc"),
        (("frontend", "std"), 0),
        (("frontend", "num_frames"), 32.0),
        (("frontend", "window"), 400),
        (("step",), 1.5),
        (("norm",), "pre"),
    ],
)
def test_a_wrong_value_of_a_classifier(malformed, models, path, value):
    config = replace(models[1]["classifier"], path, value)
    name = {"dim": "", "labels": ""}.get(path[-1], path[-1])
    assert name in malformed("classifier", config)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("decoder", "groups"), 3),
        (("decoder", "kernel"), 4),
        (("decoder", "depth"), 2),
        (("decoder", "input_dim"), 4),
        (("teacher", "average_top_k"), 3),
        (("teacher", "average_top_k"), 0),
        (("teacher", "center_momentum"), 0.9),
        (("student", "mask_noise_std"), -1),
        (("utterance_weight",), -1),
    ],
)
def test_a_wrong_value_of_a_pretraining(malformed, models, path, value):
    config = replace(models[1]["pretraining"], path, value)
    malformed("pretraining", config)


@pytest.mark.parametrize("kind", LOADS)
def test_a_missing_key_is_named(malformed, models, kind):
    for path in (
        *(("kind",), ("encoder",), ("encoder", "dim"), ("encoder", "num_heads")),
        *(("frontend", "mean"), ("frontend", "num_frames")),
    ):
        config = copy.deepcopy(models[1][kind])
        section = config if len(path) == 1 else config[path[0]]
        del section[path[-1]]
        assert f"'{path[-1]}'" in malformed(kind, config)


def raw(config):
    text = json.dumps(config)
    return {
        "UTF-16": text.encode("utf-16"),
        "Latin-1": text.replace('"a"', '"\xe9"').encode("latin-1"),
        "nested": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "nested lists": b"[" * 100_000,
        "duplicate": text.replace('"num_classes"', '"num_classes": 3, "num_classes"'),
        "NaN": text.replace('"num_classes": 3', '"num_classes": NaN'),
        "Infinity": text.replace('"num_classes": 3', '"num_classes": -Infinity'),
        "overflow": text.replace("4.569", "1e999"),
        "5000 digits": text.replace('"num_classes": 3', f'"num_classes": {"9" * 5000}'),
        "large": b'{"a": "' + b"x" * 2**25 + b'"}',
        "trailing": text + "}",
        "truncated": text[:60],
        "empty": "",
        "zeros": bytes(100),
        "web page": "<!DOCTYPE html><html></html>",
        "pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "number": "3",
        "null": "null",
        "text": '"classifier"',
    }


@pytest.mark.parametrize("name", raw({}))
def test_malformed_json(malformed, models, name):
    content = raw(models[1]["classifier"])[name]
    content = content if isinstance(content, bytes) else content.encode()
    malformed("classifier", content)


def test_a_byte_order_mark_is_harmless(models):
    folder, configs = models
    path = folder / "classifier" / "config.json"
    path.write_text(json.dumps(configs["classifier"]), encoding="utf-8-sig")
    assert eat.load_classifier(path.parent).config["num_classes"] == 3


# -- fuzz ------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(0, 40)
    | st.floats()
    | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


def load_bounded(load, path):
    """Load, or raise a checkpoint error, with little memory and in little time."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        load(path)
    except CheckpointError as error:
        assert "\n" not in str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert time.perf_counter() - start < 1.0 + 1.0  # shared machines
    assert peak < 2**26


@settings(max_examples=80)
@given(data=st.data())
@pytest.mark.slow
def test_any_config(models, data):
    folder, configs = models
    kind = data.draw(st.sampled_from(sorted(LOADS)))
    config = configs[kind]
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(sorted(paths(config))))
        config = replace(config, path, data.draw(VALUES))
    target = folder / kind / "config.json"
    target.write_text(json.dumps(config))
    try:
        load_bounded(LOADS[kind], target.parent)
    finally:
        target.write_text(json.dumps(configs[kind]))


@settings(max_examples=80)
@given(data=st.data())
@pytest.mark.slow
def test_any_header(models, data):
    """The header of the weights: other names, types, shapes, offsets, or bytes."""
    folder, _ = models
    path = folder / "classifier" / "model.safetensors"
    whole = path.read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + size])
    name = data.draw(st.sampled_from(sorted(header)))
    if data.draw(st.booleans()) and "shape" in header[name]:
        field = data.draw(st.sampled_from(["shape", "dtype", "data_offsets"]))
        numbers = st.lists(st.integers(0, 2**63), max_size=4)
        header[name][field] = data.draw(VALUES | numbers)
    else:
        header[data.draw(st.text(max_size=8))] = header.pop(name)
    text = json.dumps(header).encode()
    length = data.draw(st.just(len(text)) | st.integers(0, 2**64 - 1))
    content = struct.pack("<Q", length) + text + whole[8 + size :]
    at = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.just(at))])
    try:
        load_bounded(eat.load_classifier, path.parent)
    finally:
        path.write_bytes(whole)


@settings(max_examples=80)
@given(data=st.data())
@pytest.mark.slow
def test_any_official_file(official_file, data):
    """A checkpoint with some bytes altered, removed or repeated."""
    whole, path = official_file
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(
            st.binary(max_size=9)
        )
    path.write_bytes(content)
    load_bounded(eat.load_classifier, path)


@pytest.fixture(scope="module")
def official_file(parity_folder, tmp_path_factory):
    """The pickle of an official file in the older format, without its weights."""
    checkpoint = torch.load(parity_folder / "official_finetuned.pt", weights_only=True)
    path = tmp_path_factory.mktemp("official") / "x.pt"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=False)
    return path.read_bytes(), path
