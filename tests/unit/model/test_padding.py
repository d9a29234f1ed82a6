"""In a padded batch, each clip gets the result that it gets alone."""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

import eat
from eat.audio.frontend import LogMel
from eat.model.classifier import POOLINGS, EATClassifier
from eat.model.encoder import EATEncoder
from eat.model.patching import valid_patches, whole_patches

FRAMES = [128, 80, 49, 16, 1]  # before the padding; 49 need four time steps


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return EATEncoder(dim=32, depth=3, num_heads=2, max_frames=128)


@pytest.fixture
def batch():
    """Padded with numbers that would be seen in any result."""
    generator = torch.Generator().manual_seed(1)
    spec = torch.randn(len(FRAMES), 128, 128, generator=generator)
    for clip, frames in zip(spec, FRAMES, strict=True):
        clip[whole_patches(frames) :] = 100.0
    return spec, torch.tensor(FRAMES)


def alone(spec):
    """Cut the padding off each clip, `[1, t, F]` each."""
    return [
        clip[None, : whole_patches(frames)]
        for clip, frames in zip(spec, FRAMES, strict=True)
    ]


def test_valid_patches():
    mask = valid_patches(torch.tensor([0, 16, 17, 64]), (4, 8))
    assert mask.view(4, 4, 8).all(dim=2).sum(dim=1).tolist() == [1, 1, 2, 4]
    assert mask.sum(dim=1).tolist() == [8, 8, 16, 32]
    assert [whole_patches(frames) for frames in (1, 16, 17)] == [16, 16, 32]


def test_encoder(encoder, batch):
    spec, frames = batch
    padded = encoder(spec, return_layers=True, return_ffn=True, valid_frames=frames)
    assert padded.valid is not None
    for row, clip in enumerate(alone(spec)):
        single = encoder(clip, return_layers=True, return_ffn=True)
        tokens = 1 + single.patches.shape[1]
        assert padded.valid[row].sum() == tokens - 1
        torch.testing.assert_close(padded.cls[row], single.cls[0], atol=2e-6, rtol=0)
        for name in ("layers", "ffn_outputs"):
            pairs = zip(getattr(padded, name), getattr(single, name), strict=True)
            for ours, theirs in pairs:
                torch.testing.assert_close(
                    ours[row, :tokens], theirs[0], atol=2e-6, rtol=0
                )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_classifier_and_its_gradients(encoder, batch, pooling):
    spec, frames = batch
    classifier = EATClassifier(encoder, 3, pooling)
    weights = torch.randn(len(FRAMES), 3, generator=torch.Generator().manual_seed(2))

    def gradients(logits):
        parameters = [p for p in classifier.parameters() if p.requires_grad]
        used = torch.autograd.grad(
            (logits * weights).sum(), parameters, allow_unused=True
        )
        return [gradient for gradient in used if gradient is not None]

    padded = classifier(spec, frames)
    single = torch.cat([classifier(clip) for clip in alone(spec)])
    torch.testing.assert_close(padded, single, atol=2e-6, rtol=0)
    for ours, theirs in zip(gradients(padded), gradients(single), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_bf16(encoder, batch):
    """As near to fp32 as the clips alone are."""
    spec, frames = batch
    exact = encoder(spec, valid_frames=frames).cls
    with torch.autocast("cpu", torch.bfloat16):
        padded = encoder(spec, valid_frames=frames).cls
        single = torch.cat([encoder(clip).cls for clip in alone(spec)])
    error, noise = (padded - exact).abs(), (single - exact).abs()
    assert error.max() < 1.5 * noise.max() < 0.2


def test_without_padding_nothing_changes(encoder, batch):
    spec, _ = batch
    whole = torch.full((len(spec),), 128)
    assert torch.equal(encoder(spec).cls, encoder(spec, valid_frames=whole).cls)


def test_waveforms_of_a_published_model(parity_folder):
    """From samples on, in a batch of the longest clip's frames and in the model's."""
    classifier = eat.load_classifier(parity_folder / "official_finetuned.pt").eval()
    frontend = LogMel(-4.268, 4.569, 128)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([300, 8000, 12345, 16000])
    clips = [torch.randn(length, generator=generator) * 0.1 for length in lengths]
    wav, frames = pad_sequence(clips, batch_first=True), frontend.valid_frames(lengths)
    assert frames.tolist() == [1, 48, 75, 98]
    longest = whole_patches(int(frames.max()))
    singles = torch.cat(
        [
            classifier(frontend(clip[None], None, whole_patches(int(count))))
            for clip, count in zip(clips, frames, strict=True)
        ]
    )
    for num_frames in (longest, None):
        spec = frontend(wav, lengths, num_frames)
        assert spec.shape[1] == (num_frames or 128)
        logits = classifier(spec, frames)
        torch.testing.assert_close(logits, singles, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "frames", [torch.tensor([0.5, 1.0]), torch.tensor([16]), torch.tensor(16)]
)
def test_other_lengths_are_refused(encoder, frames):
    with pytest.raises(ValueError, match="valid_frames"):
        encoder(torch.zeros(2, 32, 128), valid_frames=frames)
