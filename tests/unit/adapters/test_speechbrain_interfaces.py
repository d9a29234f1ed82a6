"""SpeechBrain's `from_hparams` gives the model that `eat.from_pretrained` gives."""

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.encoder import CategoricalEncoder

import eat
from eat.adapters.speechbrain import EATFeatures, EATTagger
from eat.interop.card import folder_texts
from eat.interop.loading import Checkpoint
from eat.interop.pretrained import save_model

LABELS = ["a", "b", "c", "d", "e", "f", "g"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, parity_folder):
    checkpoint = Checkpoint.read(parity_folder / "official_finetuned.pt")
    config = {**checkpoint.config, "labels": LABELS, "multi_label": False}
    path = tmp_path_factory.mktemp("hub") / "model"
    save_model(path, config, checkpoint.classifier(), folder_texts(path, config, 1))
    return path


@pytest.fixture(scope="module")
def tagger(folder):
    return EATTagger.from_hparams(source=str(folder), run_opts={"device": "cpu"})


@pytest.fixture
def wavs():
    return torch.randn(3, 16_000, generator=torch.Generator().manual_seed(0)) * 0.1


def test_equals_from_pretrained(folder, tagger, wavs):
    model, lens = eat.from_pretrained(folder, device="cpu"), torch.tensor([1, 0.5, 0.8])
    assert torch.equal(tagger.encode_batch(wavs, lens), model.encode_batch(wavs, lens))
    assert not any(parameter.requires_grad for parameter in tagger.parameters())
    out_prob, score, index, text_lab = tagger.classify_batch(wavs, lens)
    scores = model.tag_batch(wavs, lens)
    assert torch.allclose(out_prob.exp(), scores)
    assert torch.equal(index, scores.argmax(1))
    assert torch.equal(score, out_prob.max(1).values)
    # As SpeechBrain's classifiers make the names from the index.
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(LABELS)
    assert text_lab == encoder.decode_torch(index)


def test_one_waveform_without_lengths(tagger, wavs):
    assert tagger(wavs[0])[0].shape == (1, 7)
    assert tagger.encode_batch(wavs[0], granularity="frames").ndim == 3


def test_file_of_another_rate(tagger, tmp_path):
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, (44_100, 2))
    soundfile.write(tmp_path / "noise.flac", wav, 44_100)
    path = str(tmp_path / "noise.flac")
    out_prob, score, index, text_lab = tagger.classify_file(path)
    assert out_prob.shape == (1, 7) and score.shape == index.shape == (1,)
    (tag, *_) = tagger.model.tag_file(path, top_k=1)
    assert text_lab == [tag.label]
    assert score.exp().item() == pytest.approx(tag.score)
    assert torch.equal(
        tagger.encode_file(path).values, tagger.model.encode_file(path).values
    )


def test_copy_in_a_savedir(folder, tmp_path, wavs, tagger):
    saved = tmp_path / "saved"
    model = EATFeatures.from_hparams(source=str(folder), savedir=str(saved))
    assert torch.equal(model(wavs), tagger.encode_batch(wavs))
    assert {"hyperparams.yaml", "config.json", "model.safetensors"} == {
        path.name for path in saved.iterdir()
    }


def test_precision(folder, wavs, tagger):
    options = {"device": "cpu", "precision": "bf16"}
    model = EATFeatures.from_hparams(source=str(folder), run_opts=options)
    expected = eat.from_pretrained(folder, device="cpu", precision="bf16")
    assert torch.equal(model.encode_batch(wavs), expected.encode_batch(wavs))
    with pytest.raises(ValueError, match="fp16"):
        EATFeatures.from_hparams(source=str(folder), run_opts={"precision": "fp16"})


# The source is a path relative to the working directory.
CODE = """
import os, sys, torch
os.chdir(os.path.dirname(sys.argv[1]))
from eat.adapters.speechbrain import EATTagger
tagger = EATTagger.from_hparams(source="./model", run_opts={"device": "cpu"})
torch.save(tagger.encode_batch(torch.load(sys.argv[2])), sys.argv[3])
"""


@pytest.mark.slow
def test_from_another_working_directory(folder, tmp_path, wavs, tagger, run_code):
    torch.save(wavs, tmp_path / "wavs.pt")
    run_code(CODE, folder, tmp_path / "wavs.pt", tmp_path / "out.pt")
    assert torch.equal(torch.load(tmp_path / "out.pt"), tagger.encode_batch(wavs))
