"""Features of files and batches: against the encoder itself and the official code."""

import math

import numpy as np
import pytest
import soundfile
import torch
from torch import nn
from torchaudio.compliance import kaldi
from torchaudio.functional import resample

import eat
from eat.audio.frontend import LogMel
from eat.inference.features import GRANULARITIES, AudioEncoder, pool

ATOL = {"atol": 1e-5, "rtol": 0}
FRAME = 2560
SHORT = (300, 5 * FRAME, 9001, 8 * FRAME)  # up to the eight frames of the model
# With 240 samples more the spectrogram has all of its 128 frames.
LENGTHS = (*SHORT, 8 * FRAME + 1, 8 * FRAME + 240, 8 * FRAME + 241, 60_000)


@pytest.fixture(scope="module")
def model(parity_folder):
    return eat.from_pretrained(parity_folder / "official_pretrain.pt", device="cpu")


@pytest.fixture(scope="module")
def tagger(parity_folder):
    return eat.from_pretrained(parity_folder / "official_finetuned.pt", device="cpu")


def noise(samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, generator=generator) * 0.1


def write(path, wav, rate=16000):
    soundfile.write(path, np.asarray(wav), rate, subtype="FLOAT")
    return path


def tokens_alone(model, wav, pad_to, layer):
    """CLS and patches of one layer and clip, by the parts of the model."""
    frames = model.frontend.num_frames
    if pad_to == "clip":
        frames = min(frames, 16 * math.ceil(len(wav) / FRAME))
    spec = model.frontend(wav[None])[:, :frames]
    with torch.no_grad():
        tokens = model.encoder(spec, return_layers=True).layers[layer][0]
    return tokens[0], tokens[1:]


def expected_alone(model, wav, granularity, pooling, pad_to, layer):
    cls, patches = tokens_alone(model, wav, pad_to, layer)
    if granularity == "clip":
        mean = patches.mean(dim=0)
        return {"cls": cls, "mean": mean, "both": torch.cat([cls, mean])}[pooling]
    patches = patches[: 8 * math.ceil(len(wav) / FRAME)]
    return patches if granularity == "patches" else patches.view(-1, 8, 48).mean(1)


@pytest.mark.parametrize("pad_to", ["model", "clip"])
@pytest.mark.parametrize(
    ("granularity", "pooling"),
    [("clip", "cls"), ("clip", "mean"), ("clip", "both")]
    + [("frames", None), ("patches", None)],
)
def test_short_clips_in_a_ragged_batch(model, granularity, pooling, pad_to):
    wavs = [noise(samples, samples) for samples in SHORT]
    options = {"granularity": granularity, "pooling": pooling, "pad_to": pad_to}
    every = model.encode_batch(wavs, layers="all", **options)
    chosen = model.encode_batch(wavs, layers=[1, -1], **options)
    assert torch.equal(chosen, every[:, [1, 2]])
    last = model.encode_batch(wavs, **options)
    torch.testing.assert_close(last, every[:, 2], **ATOL)
    middle = model.encode_batch(wavs, layers=1, **options)
    assert torch.equal(middle, every[:, 1])
    if granularity == "clip":
        by_array = model.encode_batch(wavs, layers=np.array([1, 2]), **options)
        assert torch.equal(by_array, chosen)
        by_item = model.encode_batch(wavs, layers=np.int64(1), **options)
        assert torch.equal(by_item, middle)
    for wav, row in zip(wavs, every, strict=True):
        for layer, values in enumerate(row):
            expected = expected_alone(model, wav, granularity, pooling, pad_to, layer)
            if granularity != "clip":
                assert not values[len(expected) :].any()
                values = values[: len(expected)]
            torch.testing.assert_close(values, expected, **ATOL)


@pytest.mark.parametrize("pad_to", ["model", "clip"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_files_batches_and_many_files_agree(model, tmp_path, granularity, pad_to):
    wavs = [noise(samples, samples) for samples in LENGTHS]
    paths = [write(tmp_path / f"{len(wav)}.wav", wav) for wav in wavs]
    options = {"granularity": granularity, "layers": [0, 2], "pad_to": pad_to}
    options["overlap"] = 0.5
    batch = model.encode_batch(wavs, **options)
    many = [*model.encode_files(paths, 3, num_workers=2, **options)]
    assert [features.path for features in many] == paths
    for wav, path, row, found in zip(wavs, paths, batch, many, strict=True):
        alone = model.encode_file(path, **options)
        assert torch.equal(found.times, alone.times) and alone.layers == (0, 2)
        assert alone.times[-1, 1] == len(wav) / 16000
        if granularity != "clip":
            per_frame = 8 if granularity == "patches" else 1
            assert alone.values.shape[1] == per_frame * math.ceil(len(wav) / FRAME)
            assert len(alone.times) == alone.values.shape[1]
            row = row[:, : alone.values.shape[1]]
        torch.testing.assert_close(alone.values, row, **ATOL)
        torch.testing.assert_close(alone.values, found.values, **ATOL)


def test_frames_of_a_long_file_are_those_of_its_windows(model, tmp_path):
    """Two full windows of eight frames, and one moved back to the end."""
    wav = noise(20 * FRAME - 700)
    features = model.encode_file(write(tmp_path / "long.wav", wav), "frames")
    windows = [wav[FRAME * start :][: model.max_samples] for start in (0, 8, 12)]
    first, second, third = (
        model(window[None]).patches[0].unflatten(0, (8, 8)).mean(dim=1)
        for window in windows
    )
    shared = (second[4:] + third[:4]) / 2
    expected = torch.cat([first, second[:4], shared, third[4:]])
    torch.testing.assert_close(features.values, expected, **ATOL)


@pytest.mark.parametrize("samples", [100, 1500, 20_720, 45_000])
@pytest.mark.parametrize("hop_ms", [10, 40, 160])
def test_finer_frames_are_interleaved_passes(model, samples, hop_ms):
    wav, hop = noise(samples), hop_ms * 16
    found = model.encode_batch(wav, granularity="frames", hop_ms=hop_ms, layers=[1])[0]
    assert found.shape[1] == math.ceil(samples / hop)
    for shift in range(0, min(samples, FRAME), hop):
        one = model.encode_batch(wav[shift:], granularity="frames", layers=[1])[0]
        own = found[:, shift // hop :: FRAME // hop]
        torch.testing.assert_close(own, one, **ATOL)


def test_windows_shorter_than_the_model(model):
    """Each is padded to the model, or encoded at its own length."""
    wav = noise(8 * FRAME)
    for pad_to in ("model", "clip"):
        found = model.encode_batch(wav, window=0.65, pad_to=pad_to)[0]
        parts = [wav[: 4 * FRAME + 240], wav[4 * FRAME :]]
        alone = [model.encode_batch(part, pad_to=pad_to)[0] for part in parts]
        if pad_to == "clip":  # the first has 15 ms more, of which no frame is made
            spec = model.frontend(parts[0][None], num_frames=64)
            alone[0] = model.encoder(spec).cls[0]
        torch.testing.assert_close(found, sum(alone) / 2, **ATOL)


def test_features_can_be_trained_on_and_are_not_shared(model):
    wav = noise(9000)
    features = model.encode_batch(wav, granularity="frames")
    nn.Linear(48, 1)(features).sum().backward()
    before = features.clone()
    model.encode_batch(noise(9000, 1), granularity="frames")
    assert torch.equal(features, before)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"granularity": "token"}, "granularity"),
        ({"pooling": "max"}, "pooling"),
        ({"granularity": "frames", "pooling": "mean"}, "pooling"),
        ({"layers": 3}, "layers"),
        ({"layers": [0, -4]}, "layers"),
        ({"layers": []}, "layers"),
        ({"layers": None}, "layers"),
        ({"layers": 1.5}, "layers"),
        ({"layers": "last"}, "layers"),
        ({"layers": np.array([0.5])}, "layers"),
        ({"pooling": ""}, "pooling"),
        ({"window": "a"}, "window"),
        ({"overlap": None}, "overlap"),
        ({"granularity": "frames", "hop_ms": "40"}, "hop_ms"),
        ({"hop_ms": 40}, "hop_ms"),
    ],
)
def test_wrong_options_are_refused_before_reading(model, options, named):
    with pytest.raises(ValueError, match=f"^{named} "):
        model.encode_file("none.wav", **options)
    with pytest.raises(ValueError, match=f"^{named} "):
        model.encode_files(["none.wav"], **options)


# -- the official code's numbers -----------------------------------------------------


class OfficialSpectrograms(LogMel):
    """The input of the official code, whatever the waveforms are."""

    def __init__(self, spec):
        super().__init__(0.0, 1.0, 128)
        self.spec = spec

    def forward(self, wav, lengths=None, num_frames=128):
        return self.spec[: len(wav), :num_frames]


def test_patches_are_the_official_ones(model, pretrain_parity):
    spec = pretrain_parity["input"][:, 0]
    model = AudioEncoder(OfficialSpectrograms(spec), model.network)
    whole = pretrain_parity["extract_features_all"]
    half = pretrain_parity["extract_features_half_length"]
    # The second clip has half the frames, and the rest of its spectrogram is not zero.
    wavs = [noise(8 * FRAME), noise(4 * FRAME)]
    options = {"pad_to": "clip"}
    patches = model.encode_batch(wavs, granularity="patches", **options)
    torch.testing.assert_close(patches[0], whole[0, 1:], **ATOL)
    torch.testing.assert_close(patches[1, :32], half[1, 1:], **ATOL)
    frames = model.encode_batch(wavs, granularity="frames", **options)
    expected = half[1, 1:].unflatten(0, (4, 8)).mean(dim=1)
    torch.testing.assert_close(frames[1, :4], expected, **ATOL)
    clips = model.encode_batch(wavs, pooling="both", **options)
    for row, tokens in zip(clips, (whole[0], half[1]), strict=True):
        expected = torch.cat([tokens[0], tokens[1:].mean(dim=0)])
        torch.testing.assert_close(row, expected, **ATOL)


def test_scores_are_the_official_ones(tagger, finetune_parity):
    spec = finetune_parity["x"][:, 0]
    tagger = AudioEncoder(OfficialSpectrograms(spec), tagger.network)
    scores = tagger.tag_batch(torch.zeros(4, 20_000))
    expected = finetune_parity["logits"].sigmoid()
    torch.testing.assert_close(scores, expected, **ATOL)


def official_spectrogram(path, num_frames, mean, std):
    """The official steps for a file: channels, 16 kHz, mean, fbank, zeros, scale."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    wav = resample(torch.from_numpy(samples.mean(axis=1)), rate, 16000)
    fbank = kaldi.fbank(
        (wav - wav.mean())[None],
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )
    padded = torch.zeros(num_frames, 128)
    padded[: len(fbank)] = fbank[:num_frames]
    return ((padded - mean) / (2 * std))[None]


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (48000, 1)])
def test_from_a_file_as_the_official_code_does_it(
    model, tagger, parity_folder, tmp_path, rate, channels
):
    samples = noise(rate * channels).view(rate, channels)
    path = write(tmp_path / "noise.wav", samples, rate)
    config = model.frontend.config
    spec = official_spectrogram(path, 128, config["mean"], config["std"])
    encoder = eat.load_encoder(parity_folder / "official_pretrain.pt")
    classifier = eat.load_classifier(parity_folder / "official_finetuned.pt")
    with torch.no_grad():
        encoded = encoder(spec)
        config = tagger.frontend.config
        spec = official_spectrogram(path, 128, config["mean"], config["std"])
        scores = classifier(spec)[0].sigmoid()
    close = {"atol": 1e-3, "rtol": 0}
    for pooling in ("cls", "mean"):
        found = model.encode_file(path, pooling=pooling).values
        torch.testing.assert_close(found, pool(encoded, pooling)[0], **close)
    patches = model.encode_file(path, "patches").values
    torch.testing.assert_close(patches, encoded.patches[0, : len(patches)], **close)
    found = {tag.label: tag.score for tag in tagger.tag_file(path, top_k=None)}
    found = torch.tensor([found[name] for name in tagger.labels])
    torch.testing.assert_close(found, scores, **close)
