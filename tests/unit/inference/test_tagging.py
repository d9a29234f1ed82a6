"""Tags are the classes with the highest scores, of a file or of its windows."""

import pytest
import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence

import eat
from eat.errors import AudioError, ManifestError
from eat.inference.features import pool
from eat.inference.tagging import top_tags
from eat.interop.loading import Checkpoint
from eat.interop.pretrained import save_model

NAMES = ("a", "b", "c", "d", "e", "f", "g")
FRAME = 2560


@pytest.fixture(scope="module")
def official(parity_folder):
    return parity_folder / "official_finetuned.pt"


@pytest.fixture(scope="module")
def model(official):
    return eat.from_pretrained(official, device="cpu", labels=NAMES)


@pytest.fixture(scope="module")
def wav():
    """16 frames: two windows of the model."""
    noise = torch.randn(16 * FRAME, generator=torch.Generator().manual_seed(0)) * 0.1
    noise[8 * FRAME :] *= torch.linspace(0, 5, 8 * FRAME)
    return noise


@pytest.fixture(scope="module")
def path(wav, tmp_path_factory):
    path = tmp_path_factory.mktemp("tags") / "noise.wav"
    soundfile.write(path, wav.numpy(), 16000, subtype="FLOAT")
    return path


def scores_of(model, wav):
    logits = model.classifier.classify(model(wav[None]))[0]
    return logits.sigmoid() if model.multi_label else logits.softmax(0)


@pytest.mark.parametrize("multi_label", [True, False])
def test_tags_of_a_file_and_scores_of_a_batch(
    model, wav, path, multi_label, monkeypatch
):
    monkeypatch.setattr(model, "multi_label", multi_label)
    windows = wav[: model.max_samples], wav[8 * FRAME :]
    expected = sum(scores_of(model, window) for window in windows) / 2
    (scores,) = model.tag_batch(wav)
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)
    tags = model.tag_file(path, top_k=None)
    assert [tag.label for tag in tags] == [NAMES[i] for i in expected.argsort().flip(0)]
    assert [tag.score for tag in tags] == sorted(scores.tolist(), reverse=True)
    assert {(tag.start, tag.end) for tag in tags} == {(0, 16 * 0.16)}
    assert model.tag_file(path, 3) == tags[:3] and len(model.tag_file(path)) == 5
    threshold = tags[1].score
    assert model.tag_file(path, threshold=threshold) == tags[:2]
    assert not model.tag_file(path, threshold=1.0)


def test_tags_of_windows(model, wav, path):
    tags = model.tag_file(path, top_k=2, window=0.8, overlap=0.4)  # 5 frames every 3
    starts = (0, 3, 6, 9, 11)
    samples = [start * FRAME for start in starts for _ in range(2)]
    assert [tag.start for tag in tags] == [start / 16000 for start in samples]
    assert [tag.end for tag in tags] == [(s + 5 * FRAME) / 16000 for s in samples]
    for number, start in enumerate(starts):
        window = wav[FRAME * start :][: 5 * FRAME + 240]
        values, classes = scores_of(model, window).topk(2)
        found = tags[2 * number : 2 * number + 2]
        assert [NAMES.index(tag.label) for tag in found] == classes.tolist()
        assert [tag.score for tag in found] == pytest.approx(values.tolist(), abs=1e-5)


def test_a_model_trained_with_masked_padding_attends_to_none(model, official, tmp_path):
    """Batches give what they give in training."""
    checkpoint = Checkpoint.read(official)
    config = {**checkpoint.config, "mask_padding": True}
    save_model(tmp_path / "model", config, checkpoint.classifier())
    masked = eat.from_pretrained(tmp_path / "model", device="cpu")
    # The second has a last frame that is too short for the spectrogram.
    samples = (7000, 4 * FRAME + 399, 4 * FRAME + 400, 8 * FRAME + 240)
    wavs = [torch.sin(torch.arange(n) ** 1.3) for n in samples]
    lengths = torch.tensor(samples)
    batch = pad_sequence(wavs, batch_first=True)
    frames = masked.frontend.valid_frames(lengths)
    spec = masked.frontend(batch, lengths)
    with torch.no_grad():
        expected = masked.encoder(spec, valid_frames=frames)
        logits = masked.classifier(spec, frames)
    close = {"atol": 1e-5, "rtol": 0}
    scores = masked.tag_batch(wavs)
    expected_scores = logits.sigmoid() if masked.multi_label else logits.softmax(1)
    torch.testing.assert_close(scores, expected_scores, **close)
    torch.testing.assert_close(masked(batch, lengths).cls, expected.cls, **close)
    for pooling in ("cls", "mean"):
        found = masked.encode_batch(wavs, pooling=pooling)
        torch.testing.assert_close(found, pool(expected, pooling), **close)
        official_way = masked.encode_batch(wavs, pooling=pooling, pad_to="model")
        assert torch.equal(official_way, model.encode_batch(wavs, pooling=pooling))
        assert (official_way - found)[0].abs().max() > 0.01


def test_equal_scores_keep_the_order_of_the_classes():
    tags = top_tags(torch.tensor([0.5, 0.7, 0.5, 0.7]), (0, 1), None, 3, None)
    assert [tag.label for tag in tags] == ["1", "3", "0"]


def test_labels_from_a_file(official, tmp_path, path):
    listed = tmp_path / "names.txt"
    listed.write_text("\n".join(NAMES))
    model = eat.from_pretrained(official, device="cpu", labels=listed)
    assert model.labels == NAMES
    listed.write_text("\n".join(NAMES[:6]))
    for labels in (listed, str(listed), NAMES[:6], []):
        with pytest.raises(ValueError, match="^labels.* 7 "):
            eat.from_pretrained(official, labels=labels)
    with pytest.raises(ValueError, match="^labels "):  # id2label, of Hugging Face
        eat.from_pretrained(official, labels=dict(enumerate(NAMES)))
    with pytest.raises(ManifestError, match="absent"):
        eat.from_pretrained(official, labels=tmp_path / "absent.csv")


def test_what_cannot_be_tagged(model, parity_folder, path):
    pretrained = eat.from_pretrained(parity_folder / "official_pretrain.pt")
    for tag in (pretrained.tag_batch, pretrained.tag_file):
        with pytest.raises(ValueError, match="classifier"):
            tag("none.wav")
    with pytest.raises(ValueError, match="^labels"):
        eat.from_pretrained(parity_folder / "official_pretrain.pt", labels=NAMES)
    with pytest.raises(AudioError, match=r"none\.wav"):
        model.tag_file("none.wav")
    wrong = {"top_k": (0, -1, 1.5, "3"), "threshold": (-0.1, 2, float("nan"), "a")}
    wrong |= {"window": (0, 11), "overlap": (1,)}
    for option, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError, match=f"^{option} "):
                model.tag_file(path, **{option: value})
