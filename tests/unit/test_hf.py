"""Exported folders in transformers give what this toolkit gives.

They run with the installed transformers; ``tools/test_transformers.sh`` runs them with
another version.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import eat
from eat.errors import CheckpointError

transformers = pytest.importorskip("transformers")
import eat.hf  # noqa: E402
from eat.interop.hugging_face_export import export_hugging_face  # noqa: E402

AutoModel = transformers.AutoModel
AutoClassifier = transformers.AutoModelForAudioClassification
NAMES = [f"sound {i}" for i in range(7)]


@pytest.fixture(scope="module")
def folders(parity_folder, tmp_path_factory):
    """Exported: the student of pre-training, and a classifier."""
    root = tmp_path_factory.mktemp("exported")
    export_hugging_face(parity_folder / "official_pretrain.pt", root / "encoder")
    finetuned = parity_folder / "official_finetuned.pt"
    export_hugging_face(finetuned, root / "classifier", NAMES)
    return root


@pytest.fixture(scope="module")
def wav():
    time = np.arange(14_000) / 16_000
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.1 * np.sin(2800 * time) + 0.01 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def spec(parity_folder, wav):
    frontend = eat.load_frontend(parity_folder / "official_finetuned.pt")
    return frontend(torch.from_numpy(wav)[None])


def poison_memory():
    """Fill memory that is allocated next, so that a value never set is seen."""
    filled = [torch.full((size,), 777.0) for size in (8, 48, 9216, 12288, 10**6) * 20]
    assert all(len(values) for values in filled)


def test_features_under_poisoned_memory(folders, parity_folder, spec):
    poison_memory()
    model = AutoModel.from_pretrained(folders / "encoder").eval()
    assert type(model) is eat.hf.EATModel and model.dtype == torch.float32
    encoder = eat.load_encoder(parity_folder / "official_pretrain.pt")
    with torch.no_grad():
        output = model(spec, output_hidden_states=True)
        expected = encoder(spec, return_layers=True)
    tokens = torch.cat([expected.cls[:, None], expected.patches], dim=1)
    torch.testing.assert_close(output.last_hidden_state, tokens, rtol=0, atol=1e-5)
    assert torch.equal(output.pooler_output, output.last_hidden_state[:, 0])
    assert len(output.hidden_states) == model.config.num_hidden_layers + 1
    for ours, theirs in zip(output.hidden_states[1:], expected.layers, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    # The first is the input of the first block.
    block = encoder.blocks[0](output.hidden_states[0])[0]
    torch.testing.assert_close(block, expected.layers[0], rtol=0, atol=1e-5)
    last, pooled = model(spec, return_dict=False)
    assert torch.equal(pooled, output.pooler_output) and last.shape == tokens.shape


def test_logits_under_poisoned_memory(folders, official_classifier, spec):
    poison_memory()
    model = AutoClassifier.from_pretrained(folders / "classifier").eval()
    with torch.no_grad():
        output, expected = model(spec), official_classifier(spec)
    torch.testing.assert_close(output.logits, expected, rtol=0, atol=1e-5)
    assert output.loss is None
    assert model.config.id2label == dict(enumerate(NAMES))
    # The same folder without its head.
    encoder = AutoModel.from_pretrained(folders / "classifier").eval()
    cls = official_classifier.encoder(spec).cls
    torch.testing.assert_close(encoder(spec).pooler_output, cls, rtol=0, atol=1e-5)


def test_waveform_to_scores(folders, wav):
    """By the pipeline and its feature extractor, which is AST's."""
    pipeline = transformers.pipeline(
        "audio-classification", model=str(folders / "classifier"), top_k=7
    )
    # transformers 4 does not see that there may be several labels.
    given = {"array": wav, "sampling_rate": 16_000}
    found = pipeline(given, function_to_apply="sigmoid")
    if int(transformers.__version__.split(".")[0]) >= 5:
        assert pipeline(given) == found
    model = eat.from_pretrained(folders / "classifier", device="cpu")
    expected = model.tag_batch(torch.from_numpy(wav)[None])[0].tolist()
    expected = dict(zip(NAMES, expected, strict=True))
    scores = {result["label"]: result["score"] for result in found}
    assert scores == pytest.approx(expected, abs=1e-4)


def test_fine_tuning(folders, spec, tmp_path):
    torch.manual_seed(0)
    poison_memory()
    model = AutoClassifier.from_pretrained(
        folders / "encoder", num_labels=3, drop_path_rate=0.1
    )
    assert model.training or model.train()
    assert model.eat.encoder.blocks[-1].drop_path.rate == pytest.approx(0.1)
    head = model.eat.head
    assert 0.01 < head.weight.std() < 0.03 and not head.bias.any()
    batch, labels = spec.repeat(2, 1, 1), torch.tensor([2, 0])
    batch[1] = batch[1].flip(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(10):
        loss = model(input_values=batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(3), abs=0.3)
    assert losses[-1] < losses[0] / 2
    # What is saved opens again, in transformers and here.
    model.eval().save_pretrained(tmp_path)
    again = AutoClassifier.from_pretrained(tmp_path).eval()
    assert torch.equal(again(batch).logits, model(batch).logits)
    assert (tmp_path / "modeling_eat.py").exists()
    with pytest.raises(CheckpointError, match="preprocessor_config"):
        eat.load_classifier(tmp_path)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folders / "encoder")
    extractor.save_pretrained(tmp_path)
    assert torch.equal(eat.load_classifier(tmp_path)(batch), model(batch).logits)


def test_loss_of_several_labels(folders, spec):
    model = AutoClassifier.from_pretrained(folders / "classifier").eval()
    labels = torch.tensor([[1, 0, 0, 1, 0, 0, 0]])
    output = model(spec, labels=labels)
    scores, targets = output.logits.sigmoid(), labels.float()
    assert output.loss.item() == pytest.approx(
        F.binary_cross_entropy(scores, targets).item(), rel=1e-5
    )


def test_bf16(folders, spec):
    full = AutoModel.from_pretrained(folders / "encoder").eval()
    half = AutoModel.from_pretrained(folders / "encoder", dtype=torch.bfloat16).eval()
    with torch.no_grad():
        exact, rounded = full(spec).pooler_output, half(spec).pooler_output
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.1)


def test_a_new_model_has_positions(folders):
    config = transformers.AutoConfig.from_pretrained(folders / "encoder")
    new, loaded = (
        AutoModel.from_config(config),
        AutoModel.from_pretrained(folders / "encoder"),
    )
    assert torch.equal(new.encoder.positions, loaded.encoder.positions)
    assert new.encoder.cls_token.std() > 0.5


def test_the_authors_config_is_refused():
    """Their folders have the same `model_type`, and would open as random weights."""
    with pytest.raises(ValueError, match="eat export hf"):
        eat.hf.EATConfig(embed_dim=768, depth=12)


WITHOUT_EAT = """
import sys
sys.modules["eat"] = None  # as if it were not installed
import torch
from transformers import AutoModel, AutoModelForAudioClassification as AutoClassifier

root, own = sys.argv[1:]
encoder, classifier, saved = root + "/encoder", root + "/classifier", own + "/saved"
spec = torch.load(own + "/spec.pt")
poison = [torch.full((n,), 777.0) for n in (8, 48, 9216, 12288, 10**6) * 20]
del poison
options = {"trust_remote_code": True}
model = AutoModel.from_pretrained(encoder, **options).eval()
outputs = [model(spec).last_hidden_state]
model = AutoClassifier.from_pretrained(classifier, **options).eval()
outputs.append(model(spec).logits)
model.save_pretrained(saved)
model = AutoClassifier.from_pretrained(saved, **options).eval()
outputs.append(model(spec).logits)
torch.save(outputs, own + "/outputs.pt")
"""


@pytest.mark.slow
def test_without_this_toolkit(folders, spec, tmp_path):
    """The folder's own code, in a process that cannot import `eat`."""
    torch.save(spec, tmp_path / "spec.pt")
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, "-c", WITHOUT_EAT, folders, tmp_path],
        env=environment,
        cwd=tmp_path,
        check=True,
        timeout=120,
    )
    tokens, logits, again = torch.load(tmp_path / "outputs.pt")
    encoder = AutoModel.from_pretrained(folders / "encoder").eval()
    classifier = AutoClassifier.from_pretrained(folders / "classifier").eval()
    assert torch.equal(tokens, encoder(spec).last_hidden_state)
    assert torch.equal(logits, classifier(spec).logits)
    assert torch.equal(again, logits)


@pytest.mark.slow
def test_sentence_transformers(folders, wav, spec, official_classifier):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(
        str(folders / "classifier"), device="cpu"
    )
    given = {"array": wav, "sampling_rate": 16_000}
    found = model.encode([given, given])
    expected = official_classifier.encoder(spec).cls.detach()[0].numpy()
    assert found.shape == (2, len(expected))
    np.testing.assert_allclose(found[1], expected, rtol=0, atol=1e-4)
