"""All that decides a run's numbers is in its fingerprint."""

import json

import pytest
import torch

from eat.data.dataset import audio_dataset
from eat.data.manifest import LabelSet, ManifestRow, write_manifest
from eat.training.inputs import model_checksum, run_fingerprint
from eat.utils.settings_diff import describe_changes

LABELS = LabelSet(("/m/1", "/m/2"), ("One", "Two"))


class Drawn:
    """A sampler with weights."""

    def __init__(self, *weights):
        self.weights = torch.tensor(weights)


@pytest.fixture
def fingerprint_of(tmp_path):
    (tmp_path / "model").mkdir()

    def make(train="abc", valid="de", test="fg", mids=("/m/1",), **changed):
        def dataset(clips):
            for clip in clips:
                path = tmp_path / f"{clip}.wav"
                path.write_bytes(changed.get("audio", b"") + clip.encode())
            rows = [ManifestRow(clip, 1.0, f"{clip}.wav", mids) for clip in clips]
            write_manifest(tmp_path / f"{clips}.csv", rows)
            labels = changed.get("labels", LABELS)
            return audio_dataset(tmp_path / f"{clips}.csv", tmp_path, labels, 1.0)

        sets = {"training": train, "validation": valid, "evaluation": test}
        sets = {name: dataset(clips) for name, clips in sets.items()} | {"kNN": None}
        weights = changed.get("model", b"weights")
        (tmp_path / "model" / "model.safetensors").write_bytes(weights)
        sampler = Drawn(*changed.get("weights", (1.0, 2.0)))
        return run_fingerprint(tmp_path, sets, sampler, str(tmp_path / "model"))

    return make


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"train": "ab"}, "training clips was 3, now 2"),
        ({"train": "acb"}, "training clips SHA-256 was"),
        ({"valid": "dx"}, "validation clips SHA-256 was"),
        ({"test": "f"}, "evaluation clips was 2, now 1"),
        ({"mids": ("/m/2",)}, "evaluation clips SHA-256 was"),
        ({"labels": LabelSet(LABELS.ids[::-1], LABELS.names[::-1])}, "classes"),
        ({"labels": LabelSet(LABELS.ids, LABELS.names[::-1])}, "classes"),
        ({"weights": (2.0, 1.0)}, "class weights SHA-256 was"),
        ({"audio": b"other"}, "training audio SHA-256 was"),
        ({"model": b"other"}, "pretrained SHA-256 was"),
    ],
    ids=str,
)
def test_every_input_counts(fingerprint_of, changed, named):
    before = json.loads(json.dumps(fingerprint_of()))  # as in a checkpoint
    assert before == fingerprint_of()
    assert named in describe_changes(before, fingerprint_of(**changed), limit=9)


def test_lists_of_other_kinds_count_by_their_length(tmp_path):
    found = run_fingerprint(tmp_path, {"training": range(7)}, None, None)
    assert found == {"training clips": 7}


def test_model_is_its_weights_and_config(tmp_path):
    assert model_checksum("none") is None
    file, folder = tmp_path / "a.pt", tmp_path / "model"
    file.write_bytes(b"one")
    one = model_checksum(file)
    file.write_bytes(b"two")
    assert one != model_checksum(file)
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text(name)
    before = model_checksum(folder)
    (folder / "README.md").write_text("a card")
    assert model_checksum(folder) == before
    (folder / "config.json").write_text("{}")
    assert model_checksum(folder) != before
