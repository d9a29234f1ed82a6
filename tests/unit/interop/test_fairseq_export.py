"""Exported files have what the official code's files have, name for name."""

import json
import logging
import pickletools
import resource
import zipfile

import numpy as np
import pytest
import torch

import eat
from eat.cli import main
from eat.interop.fairseq_export import export_fairseq, pretraining_cfg
from eat.interop.fairseq_settings import ENCODER, OBJECTIVE, flatten
from eat.interop.loading import Checkpoint, build_classifier, build_pretraining
from eat.interop.pretrained import save_model
from eat.model.encoder import PRESETS

FILES = [
    "official_pretrain.pt",
    "official_finetuned.pt",
    "trajectory/official_end.pt",
    "trajectory/official_finetuned_real_run.pt",
]
POSITIONS = "modality_encoders.IMAGE.fixed_positional_encoder.positions"


def read(path):
    """Read a file as the official code does; real runs contain a number of numpy."""
    numpy = [np.float64(0).__reduce__()[0], np.dtype, type(np.dtype(np.float64))]
    with torch.serialization.safe_globals(numpy):
        return torch.load(path, weights_only=True)


@pytest.fixture
def to_ours(tmp_path):
    """Write a checkpoint as a folder of ours."""

    def write(source):
        checkpoint = Checkpoint.read(source)
        load = "classifier" if checkpoint.kind == "classifier" else "pretraining"
        save_model(tmp_path / "ours", checkpoint.config, getattr(checkpoint, load)())
        return tmp_path / "ours"

    return write


@pytest.fixture(params=FILES)
def both(request, parity_folder, to_ours, tmp_path):
    """An official file, and the one that our folder of this model is exported to."""
    official = parity_folder / request.param
    export_fairseq(to_ours(official), tmp_path / "x.pt")
    return read(official), read(tmp_path / "x.pt")


def test_weights_are_the_official_ones_bit_for_bit(both):
    official, exported = (content["model"] for content in both)
    pairs = [(official, exported)]
    if "_ema" in official:
        pairs.append((official.pop("_ema"), exported.pop("_ema")))
    for theirs, ours in pairs:
        assert theirs.keys() == ours.keys()
        for name, tensor in theirs.items():
            assert tensor.shape == ours[name].shape and ours[name].is_contiguous()
            assert tensor.dtype == ours[name].dtype == torch.float32
            if name.endswith(POSITIONS):  # recomputed, in double precision
                assert (ours[name] - tensor).abs().max() < 1e-6
            else:
                assert torch.equal(ours[name], tensor), name


def test_entries_and_settings_are_the_official_ones(both):
    official, exported = both
    assert official.keys() - {"last_optimizer_state"} == exported.keys()
    added = exported["extra_state"].keys() - official["extra_state"].keys()
    assert added == {"eat_config"}
    (theirs,), (ours,) = (x["optimizer_history"] for x in both)
    assert theirs.keys() == ours.keys()
    assert official["task_state"] == exported["task_state"]
    for part in ("model", "task"):
        theirs, ours = (dict(flatten(x["cfg"][part])) for x in both)
        inner = "pretrained_model_args."
        used = (f"{inner}model.", f"{inner}task.")
        names = {n for n in theirs if not n.startswith(inner) or n.startswith(used)}
        # Written by the official fine-tuning into the settings of pre-training.
        names -= {f"{inner}model.drop_path_rate"}
        assert names <= ours.keys()
        assert all(name.startswith(inner) for name in ours.keys() - names)


def test_settings_have_the_official_values(both):
    theirs, ours = (x["cfg"]["model"] for x in both)
    skipped = {"cls_loss", "clone_batch"}  # of which the product counts
    if "pretrained_model_args" in theirs:
        assert theirs["prediction_mode"] == ours["prediction_mode"]
        assert theirs["num_classes"] == ours["num_classes"]
        theirs, ours = (x["pretrained_model_args"]["model"] for x in (theirs, ours))
        # A classifier of ours does not know how it was pre-trained.
        skipped |= OBJECTIVE.keys()
    else:
        weights = [x["cls_loss"] * x["clone_batch"] for x in (theirs, ours)]
        assert weights[0] == weights[1]
    theirs, ours = dict(flatten(theirs)), dict(flatten(ours))
    for name in {*ENCODER, *OBJECTIVE} - skipped | {"modalities.image.max_length"}:
        assert theirs[name] == ours[name], name
    theirs, ours = (x["cfg"]["task"] for x in both)
    for name in ("_name", "target_length", "esc50_eval", "spcv2_eval"):
        assert theirs[name] == ours[name]


def test_a_file_names_tensors_and_containers_only(official, tmp_path):
    export_fairseq(official, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        content = archive.read("archive/data.pkl")
    named = {arg for op, arg, _ in pickletools.genops(content) if "GLOBAL" in op.name}
    assert named <= {
        "torch._utils _rebuild_tensor_v2",
        "torch FloatStorage",
        "collections OrderedDict",
    }


FRONTEND = {"mean": -5.5, "std": 3.25, "num_frames": 64}
OURS = {
    "pretraining": {
        "kind": "pretraining",
        "step": 123,
        "decoder": {"dim": 12, "depth": 2, "kernel": 5, "groups": 4, "input_dim": 16},
        "student": {"mask_noise_std": 0.02},
        "teacher": {"average_top_k": 1},
        "utterance_weight": 0.7,
    },
    "classifier": {
        "kind": "classifier",
        "num_classes": 3,
        "pooling": "linear_softmax",
        "labels": ["dog", "cat", "Hund, groß"],
        "multi_label": False,
    },
}


def make(folder, kind, **changed):
    """Write a folder of ours; none of its options are the official ones."""
    encoder = {"dim": 16, "depth": 2, "num_heads": 2, "max_frames": 64, "num_mels": 128}
    encoder |= {"position_scale": 0.2, **changed.pop("encoder", {})}
    config = {**OURS[kind], "encoder": encoder, "frontend": FRONTEND, **changed}
    build = build_pretraining if kind == "pretraining" else build_classifier
    save_model(folder, config, build(config))
    return folder


@pytest.mark.parametrize("kind", OURS)
def test_ours_survive_the_round_trip(kind, tmp_path):
    export_fairseq(make(tmp_path / "ours", kind), tmp_path / "x.pt")
    before, after = (Checkpoint.read(tmp_path / name) for name in ("ours", "x.pt"))
    assert after.config == before.config
    before, after = before.state(), after.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_how_scores_are_made_survives(tmp_path):
    """Also if the config does not say it, as in version 0.1."""
    folder = make(tmp_path / "ours", "classifier")
    config = json.loads((folder / "config.json").read_text())
    del config["multi_label"]
    (folder / "config.json").write_text(json.dumps(config))
    export_fairseq(folder, tmp_path / "x.pt")
    assert not Checkpoint.read(folder).multi_label
    assert not Checkpoint.read(tmp_path / "x.pt").multi_label


@pytest.mark.parametrize(("max_frames", "rows"), [(1024, 512), (12288, 6144)])
def test_positions_have_the_length_of_the_model(max_frames, rows, tmp_path):
    encoder = {"max_frames": max_frames, "position_scale": 1.0}
    folder = make(tmp_path / "ours", "classifier", encoder=encoder)
    export_fairseq(folder, tmp_path / "x.pt")
    content = read(tmp_path / "x.pt")
    assert content["model"][f"model.{POSITIONS}"].shape == (1, rows, 16)
    inner = content["cfg"]["model"]["pretrained_model_args"]["model"]
    assert inner["modalities"]["image"]["max_length"] == rows // 8
    assert eat.load_encoder(tmp_path / "x.pt").config["max_frames"] == max_frames


@pytest.mark.parametrize(
    ("preset", "decoder"), [("base", (768, 6, 3)), ("large", (1024, 3, 5))]
)
def test_published_sizes(preset, decoder):
    """Those of the official YAML files for base and large."""
    width, depth, kernel = decoder
    config = {
        "encoder": {**PRESETS[preset], "max_frames": 12288},
        "decoder": {"dim": width, "depth": depth, "kernel": kernel, "groups": 16},
        "utterance_weight": 192.0,
    }
    model = pretraining_cfg(config, {"target_length": 1024})["model"]
    image = model["modalities"]["image"]
    assert image["decoder"]["decoder_dim"] == model["embed_dim"] == width
    assert (image["embed_dim"], image["max_length"]) == (width, 768)
    assert image["decoder"]["decoder_layers"] == depth
    assert image["decoder"]["decoder_kernel"] == kernel
    assert (model["cls_loss"], model["clone_batch"]) == (1.0, 16)
    assert model["average_top_k_layers"] == model["depth"]
    assert model["depth"] == {"base": 12, "large": 24}[preset]


def test_a_center_is_left_out_and_said(tmp_path, caplog):
    teacher = {"center_momentum": 0.9, "num_patches": 32}
    make(tmp_path / "ours", "pretraining", teacher=teacher)
    with caplog.at_level(logging.WARNING):
        export_fairseq(tmp_path / "ours", tmp_path / "x.pt")
    assert "center" in caplog.text
    teacher = eat.load_pretraining(tmp_path / "x.pt").teacher
    before = eat.load_encoder(tmp_path / "ours", "teacher").state_dict()
    assert teacher.center_momentum is None
    for name, tensor in teacher.encoder.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_the_official_code_has_not_is_refused(
    refusal, official, write_hugging_face, tmp_path
):
    def export(source):
        export_fairseq(source, tmp_path / "out" / "x.pt")

    hub = write_hugging_face(tmp_path / "hub", official)
    assert "decoder" in refusal(export, hub)
    mels = make(tmp_path / "mels", "classifier", encoder={"num_mels": 64})
    assert "num_mels is 64" in refusal(export, mels)
    content = read(official)
    content["cfg"]["model"]["d2v_loss"] = 0.5
    torch.save(content, tmp_path / "other.pt")
    assert "d2v_loss" in refusal(export, tmp_path / "other.pt")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing_and_is_said(official, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"too large.*x\.pt"):
            export_fairseq(official, tmp_path / "x.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [*tmp_path.iterdir()]


def test_a_config_in_a_file_is_checked(refusal, official, tmp_path):
    export_fairseq(official, tmp_path / "x.pt")
    content = read(tmp_path / "x.pt")
    content["extra_state"]["eat_config"]["encoder"]["dim"] = 10**9
    torch.save(content, tmp_path / "y.pt")
    assert "dim" in refusal(eat.load_encoder, tmp_path / "y.pt")


def test_masked_padding_is_said_to_be_lost(tmp_path, caplog):
    """Reading it back here keeps it; only the official code encodes the padding."""
    folder = make(tmp_path / "ours", "classifier", mask_padding=True)
    export_fairseq(folder, tmp_path / "x.pt")
    assert str(folder) in caplog.text
    assert Checkpoint.read(tmp_path / "x.pt").mask_padding


@pytest.mark.parametrize("target", ["hf", "onnx"])
def test_others_refuse_masked_padding(target, tmp_path):
    folder = make(tmp_path / "ours", "classifier", mask_padding=True)
    with pytest.raises(SystemExit, match="mask_padding"):
        main(["export", target, str(folder), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
