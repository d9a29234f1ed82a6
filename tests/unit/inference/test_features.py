"""`from_pretrained` gives, bit for bit, what the loaded parts of a checkpoint give."""

import numpy as np
import pytest
import soundfile
import torch

import eat
from eat.audio.io import read_audio
from eat.errors import AudioError, CheckpointError, ExperimentError
from eat.inference.features import AudioEncoder, pool
from eat.interop import loading
from eat.interop.loading import Checkpoint
from eat.interop.pretrained import save_model

RATE = 44100


def write_ours(folder, official, **config):
    checkpoint = Checkpoint.read(official)
    load = getattr(checkpoint, checkpoint.kind)
    save_model(folder, {**checkpoint.config, **config}, load())


@pytest.fixture(params=["fairseq", "ours", "hugging_face"])
def make_checkpoint(request, parity_folder, tmp_path, write_hugging_face):
    """Write the official checkpoint of a name in each of the three formats."""

    def make(name):
        official = parity_folder / f"official_{name}.pt"
        if request.param == "fairseq":
            return official
        write = write_ours if request.param == "ours" else write_hugging_face
        write(tmp_path / name, official)
        return tmp_path / name

    return make


@pytest.fixture
def official(parity_folder):
    return parity_folder / "official_pretrain.pt"


@pytest.fixture
def sound(tmp_path):
    """Half a second of stereo noise at 44.1 kHz."""
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE // 2, 2))
    soundfile.write(tmp_path / "noise.flac", wav, RATE)
    return tmp_path / "noise.flac"


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.1


@pytest.mark.parametrize("name", ["pretrain", "finetuned"])
def test_equals_the_loaded_parts(make_checkpoint, name, sound):
    path = make_checkpoint(name)
    frontend, encoder = eat.load_frontend(path), eat.load_encoder(path)
    options = {}
    if frontend.num_frames > encoder.config["max_frames"]:  # of the tiny HF folder
        options["num_frames"] = frontend.num_frames = frontend.config["num_frames"] = 64
    model = eat.from_pretrained(path, device="cpu", **options)
    assert model.frontend.config == frontend.config
    assert model.encoder.config == encoder.config
    wav, lengths = noise(3, 20000), torch.tensor([20000, 300, 7000])
    spec = frontend(wav, lengths)
    with torch.no_grad():
        expected = encoder(spec)
    found = model(wav, lengths)
    assert torch.equal(found.cls, expected.cls)
    assert torch.equal(found.patches, expected.patches)
    whole = read_audio(sound, max_seconds=model.max_seconds)
    assert torch.equal(model.encode_file(sound).values, model(whole[None]).cls[0])
    if name == "finetuned":
        logits = eat.load_classifier(path)(spec)
        assert torch.equal(model.classifier(spec), logits)
        assert torch.equal(model.classifier.classify(found), logits)
    else:
        assert model.classifier is None and model.labels is None


def test_the_checkpoint_is_read_once(official, monkeypatch):
    reads, read = [], loading.read_fairseq
    monkeypatch.setattr(loading, "read_fairseq", lambda p: reads.append(p) or read(p))
    eat.from_pretrained(official)
    assert len(reads) == 1


def test_frozen_in_evaluation_mode_and_fp32(official):
    model = eat.from_pretrained(official, device="cpu")
    assert not any(module.training for module in model.modules())
    out = model(noise(2, 16000).double())
    for tokens in (out.cls, out.patches):
        assert tokens.dtype == torch.float32 and not tokens.requires_grad
    # Its output can be the input of a trainable layer; its weights can be trained.
    torch.nn.Linear(out.cls.shape[1], 1)(out.cls).sum().backward()
    model.requires_grad_()
    model(noise(2, 16000)).cls.sum().backward()
    assert model.encoder.cls_token.grad is not None


def test_bf16_is_close_and_different(official):
    wav = noise(2, 16000)
    fp32, bf16 = (
        eat.from_pretrained(official, device="cpu", precision=precision)(wav)
        for precision in ("fp32", "bf16")
    )
    assert bf16.cls.dtype == torch.float32
    assert 0 < (fp32.cls - bf16.cls).abs().max() < 0.1
    with pytest.raises(ValueError, match="fp8"):
        eat.from_pretrained(official, precision="fp8")


def test_teacher(official, parity_folder):
    wav = noise(1, 16000)
    teacher = eat.from_pretrained(official, "teacher", device="cpu")
    encoder = eat.load_encoder(official, "teacher")
    with torch.no_grad():
        expected = encoder(eat.load_frontend(official)(wav))
    assert torch.equal(teacher(wav).cls, expected.cls)
    finetuned = parity_folder / "official_finetuned.pt"
    for path, weights in ((finetuned, "teacher"), (official, "nobody")):
        with pytest.raises(CheckpointError, match=str(path)):
            eat.from_pretrained(path, weights)


def test_labels_of_a_classifier(parity_folder, tmp_path):
    official = parity_folder / "official_finetuned.pt"
    num_classes = Checkpoint.read(official).config["num_classes"]
    labels = [f"class {number}" for number in range(num_classes)]
    write_ours(tmp_path / "model", official, labels=labels)
    assert eat.from_pretrained(tmp_path / "model").labels == tuple(labels)
    ids = tuple(f"/m/c{number}" for number in range(num_classes))
    assert eat.from_pretrained(official).labels == ids


def test_options_override_the_frontend(official):
    model = eat.from_pretrained(official, mean=-1.0, std=2.0, num_frames=64)
    assert model.frontend.config == {"mean": -1.0, "std": 2.0, "num_frames": 64}
    assert model.max_samples == 63 * 160 + 400
    longest = model.encoder.config["max_frames"]
    for frames in (0, 60, longest + 16):
        with pytest.raises(ExperimentError, match=f"num_frames {frames}"):
            eat.from_pretrained(official, num_frames=frames)


def test_a_file_longer_than_the_model_is_averaged_over_windows(official, tmp_path):
    model = eat.from_pretrained(official, device="cpu")
    wav = noise(model.max_samples + 12345).numpy()
    soundfile.write(tmp_path / "long.wav", wav, 16000, subtype="FLOAT")
    features = model.encode_file(tmp_path / "long.wav", pooling="mean")
    # The last window of 8 frames of 2,560 samples ends with the recording.
    starts = [0, -(-len(wav) // 2560) - 8]
    windows = [wav[2560 * start :][: model.max_samples] for start in starts]
    pooled = [pool(model(torch.from_numpy(w[None])), "mean")[0] for w in windows]
    torch.testing.assert_close(features.values, sum(pooled) / 2, atol=1e-5, rtol=0)
    assert features.numpy().shape == (model.encoder.dim,)
    assert features.times.tolist() == [[0.0, len(wav) / 16000]]
    assert features.path == tmp_path / "long.wav"
    with pytest.raises(ValueError, match="max"):
        model.encode_file(tmp_path / "long.wav", pooling="max")


def test_times_are_those_of_a_short_file(official, sound):
    times = eat.from_pretrained(official, device="cpu").encode_file(sound).times
    assert times.tolist() == [[0.0, 0.5]]


def test_the_device_is_checked_first(official):
    assert (
        eat.from_pretrained(official, device=torch.device("cpu")).device.type == "cpu"
    )
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ExperimentError, match=f"^device '{device}'") as caught:
            eat.from_pretrained("none.pt", device=device)
        assert "\n" not in str(caught.value)


def test_errors_name_the_file(official, tmp_path):
    model = eat.from_pretrained(official, device="cpu")
    (tmp_path / "text.wav").write_text("not audio")
    for name in ("absent.wav", "text.wav"):
        with pytest.raises(AudioError, match=str(tmp_path / name)):
            model.encode_file(tmp_path / name)
    for source in (tmp_path / "none.pt", tmp_path, "owner/name"):
        with pytest.raises(CheckpointError, match=str(source)):
            eat.from_pretrained(source)


@pytest.mark.parametrize(
    ("wav", "lengths"),
    [
        (torch.zeros(16000), None),
        (torch.zeros(1, 1, 16000), None),
        (torch.zeros(1, 16000, dtype=torch.int16), None),
        (torch.zeros(2, 16000), torch.tensor([1.0, 0.5])),
        (torch.zeros(2, 16000), torch.tensor([16000])),
        (torch.zeros(2, 16000), torch.tensor([16000, 16001])),
    ],
)
def test_wrong_input_is_refused(official, wav, lengths):
    model = eat.from_pretrained(official, device="cpu")
    with pytest.raises(ValueError, match="wav|lengths"):
        model(wav, lengths)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_inputs_move_to_the_model(official):
    model, wav = eat.from_pretrained(official), noise(2, 16000)
    assert model.device.type == "cuda"
    lengths = torch.tensor([16000, 8000])
    on_cpu = eat.from_pretrained(official, device="cpu")(wav, lengths)
    torch.testing.assert_close(
        model(wav, lengths).cls.cpu(), on_cpu.cls, atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_features_are_the_official_ones(pretrain_parity, official, pooling):
    model = eat.from_pretrained(official, device="cpu")
    spec = pretrain_parity["input"][:, 0]
    for tokens, frames in (("all", 128), ("half_length", 64)):
        expected = pretrain_parity[f"extract_features_{tokens}"]
        expected = expected[:, 0] if pooling == "cls" else expected[:, 1:].mean(dim=1)
        found = pool(model.encoder(spec[:, :frames]), pooling)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_built_model_needs_no_checkpoint():
    frontend = eat.audio.frontend.LogMel(-4.0, 4.0, 32)
    encoder = eat.model.encoder.EATEncoder(dim=8, depth=1, num_heads=2, max_frames=32)
    model = AudioEncoder(frontend, encoder)
    assert model.encoder is encoder and model(noise(1, 5000)).cls.shape == (1, 8)
