"""The model card: what it says, and that an edited one stays."""

import re

import pytest
import yaml

from eat.interop.card import (
    CARD,
    HYPERPARAMS,
    Training,
    folder_texts,
    is_edited,
    model_card,
)
from eat.interop.loading import Checkpoint

ENCODER = {"dim": 768, "depth": 12, "num_heads": 12}
CLASSIFIER = {
    "kind": "classifier",
    "encoder": ENCODER,
    "num_classes": 50,
    "multi_label": False,
    "frontend": {"mean": -6.627, "std": 5.359, "num_frames": 512},
    "step": 4000,
}
TRAINING = Training(
    corpus="ESC-50-master",
    clips={"training": 1600, "validation": 400},
    settings={"lr": 5e-05, "seed": 1, "folder": "/secret/place", "opt": {"a": 1}},
    metrics={"accuracy": 0.958, "epoch": 40},
)


def front_matter(card):
    _, block, body = re.split(r"^---\n", card, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(block), body


def tables(body):
    return dict(re.findall(r"^\| (.+?) \| (.+?) \|$", body, re.MULTILINE))


def test_card_of_a_run():
    meta, body = front_matter(model_card(CLASSIFIER, 85_000_000, TRAINING))
    assert meta["pipeline_tag"] == "audio-classification"
    assert "license" not in meta  # its author's to choose
    facts = tables(body)
    assert facts["parameters"] == "85,000,000"
    assert facts["size"].startswith("base")
    assert "5.12 s" in facts["input"]
    assert (facts["accuracy"], facts["lr"], facts["optimizer steps"]) == (
        *("0.958", "5e-05"),
        "4,000",
    )
    assert "ESC-50-master" in body and "1,600 training" in body
    assert "secret" not in body and "opt" not in facts
    assert "EATTagger" in body and "tag_file" in body


def test_card_of_an_unknown_run(official):
    checkpoint = Checkpoint.read(official)
    meta, body = front_matter(model_card(checkpoint.config, 1))
    assert meta["pipeline_tag"] == "feature-extraction"
    assert "## Training" not in body and "## Citation" in body
    assert "tag_file" not in body and "EATFeatures" in body
    assert tables(body)["size"].startswith("other")


def test_python_in_the_card_is_python():
    blocks = re.findall(
        r"```python\n(.*?)```", model_card(CLASSIFIER, 1, TRAINING), re.DOTALL
    )
    assert len(blocks) == 3
    for block in blocks:
        compile(block, CARD, "exec")


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("library_name", "license: mit\nlibrary_name"),
        lambda text: text + "More.\n",
        lambda text: text.rpartition("<!--")[0],
        lambda text: "",
    ],
)
def test_edited_card_is_not_replaced(tmp_path, edit):
    path = tmp_path / CARD
    assert folder_texts(tmp_path, CLASSIFIER, 1).keys() == {CARD, HYPERPARAMS}
    generated = model_card(CLASSIFIER, 1, TRAINING)
    path.write_text(generated)
    assert not is_edited(path)
    assert CARD in folder_texts(tmp_path, CLASSIFIER, 2)  # while training continues
    path.write_text(edit(generated))
    assert folder_texts(tmp_path, CLASSIFIER, 2).keys() == {HYPERPARAMS}
