"""The network reproduces the official activations, losses and gradients."""

import pytest
import torch
import torch.nn.functional as F

import eat
from eat.audio.augment import mix_with_flipped
from eat.model import transformer
from eat.model.encoder import EATEncoder, EncoderOutput
from eat.model.patching import sincos_positions
from eat.model.transformer import Attention, DropPath, explicit_attention


@pytest.mark.parametrize("dim", [48, 768])
def test_position_rows(misc_parity, dim):
    for name, grid in [("rows", (64, 8)), ("max768_rows", (768, 8))]:
        expected = misc_parity[f"sincos.{dim}.{name}"]
        rows = misc_parity.numbers[f"sincos.{dim}"][name]
        # The official table is computed in float32; time index 767 times 1 ulp.
        torch.testing.assert_close(
            sincos_positions(dim, grid)[rows], expected, atol=6e-5, rtol=0
        )


def test_position_rows_do_not_depend_on_length():
    assert torch.equal(sincos_positions(48, (64, 8))[:40], sincos_positions(48, (5, 8)))


def test_embedding_and_encoder(pretrain_parity, parity_folder):
    encoder = eat.load_encoder(parity_folder / "official_pretrain.pt")
    spec = pretrain_parity["input"][:, 0]
    torch.testing.assert_close(
        encoder.embed(spec) - encoder.positions[:64],
        pretrain_parity["student_patches"],
        atol=1e-5,
        rtol=0,
    )
    out = encoder(spec)
    expected = pretrain_parity["extract_features_all"]
    torch.testing.assert_close(
        torch.cat([out.cls[:, None], out.patches], 1), expected, atol=1e-5, rtol=0
    )
    half = encoder(spec[:, :64], return_layers=True)
    expected = pretrain_parity["extract_features_half_length"]
    torch.testing.assert_close(half.layers[-1], expected, atol=1e-5, rtol=0)


def test_teacher_layers(pretrain_parity, parity_folder):
    encoder = eat.load_encoder(parity_folder / "official_pretrain.pt", "teacher")
    out = encoder(pretrain_parity["input"][:, 0], return_layers=True, return_ffn=True)
    for i, ffn_output in enumerate(out.ffn_outputs):
        expected = pretrain_parity[f"teacher_lr_{i}"]
        torch.testing.assert_close(ffn_output[:, 1:], expected, atol=2e-5, rtol=0)
    expected = pretrain_parity["teacher_x_2"]
    torch.testing.assert_close(out.layers[-1], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("pooling", "name"),
    [
        ("cls", "logits"),
        ("mean", "logits_MEAN_POOLING"),
        ("linear_softmax", "logits_LIN_SOFTMAX"),
    ],
)
def test_classifier_logits(finetune_parity, parity_folder, pooling, name):
    classifier = eat.load_classifier(parity_folder / "official_finetuned.pt")
    classifier.pooling = pooling
    feats = finetune_parity["feats"]
    logits = classifier.classify(EncoderOutput(feats[:, 0], feats[:, 1:]))
    torch.testing.assert_close(logits, finetune_parity[name], atol=2e-6, rtol=0)
    whole = classifier(finetune_parity["x"][:, 0])
    torch.testing.assert_close(whole, finetune_parity[name], atol=5e-6, rtol=0)


def test_classifier_gradients(finetune_parity, parity_folder):
    """Mixup, then BCE summed and divided by the positives, as on AudioSet."""
    classifier = eat.load_classifier(parity_folder / "official_finetuned.pt")
    x, y = mix_with_flipped(finetune_parity["x"][:, 0], finetune_parity["y"], 0.3)
    loss = F.binary_cross_entropy_with_logits(classifier(x), y, reduction="sum")
    expected = finetune_parity.numbers["bce_train_mixup0.3"]
    assert loss.item() == pytest.approx(expected["sum"], rel=1e-6)
    (loss / expected["sample_size"]).backward()
    for gradient, name in [
        (classifier.head.weight.grad, "grad_head_w_div"),
        (classifier.encoder.blocks[0].attn.qkv.weight.grad, "grad_qkv0_div"),
    ]:
        torch.testing.assert_close(
            gradient, finetune_parity[name], atol=1e-6, rtol=1e-4
        )


def test_too_long_input_is_refused():
    encoder = EATEncoder.from_preset("tiny", max_frames=64)
    with pytest.raises(ValueError, match="80.*64"):
        encoder(torch.zeros(1, 80, 128))
    with pytest.raises(ValueError, match="60.*16"):
        encoder(torch.zeros(1, 60, 128))
    with pytest.raises(ValueError, match="huge"):
        EATEncoder.from_preset("huge")


def test_finetuning_losses_and_their_normalizers(finetune_parity, parity_folder):
    """The losses of the three corpora: sums, divisors, mixed labels."""
    classifier = eat.load_classifier(parity_folder / "official_finetuned.pt")
    x, numbers = finetune_parity["x"][:, 0], finetune_parity.numbers
    labels, one_hot = finetune_parity["y"], finetune_parity["y_onehot"]
    mixed_x, mixed_labels = mix_with_flipped(x, labels, 0.3)
    _, mixed_one_hot = mix_with_flipped(x, one_hot, 0.3)

    def bce(spec, target):
        logits = classifier(spec)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="sum")

    def cross_entropy(smoothing):
        return F.cross_entropy(
            classifier(x), one_hot, reduction="sum", label_smoothing=smoothing
        )

    # AudioSet divides by the number of (mixed) positives, the others by the clips.
    for name, loss, size in [
        ("bce_eval", bce(x, labels), labels.sum()),
        ("bce_train_mixup0.3", bce(mixed_x, mixed_labels), mixed_labels.sum()),
        ("spcv2_train_mixup0.3", bce(mixed_x, mixed_one_hot), len(x)),
        ("spcv2_eval", bce(x, one_hot), len(x)),
        ("esc50_train_ls0.1", cross_entropy(0.1), len(x)),
        ("esc50_eval", cross_entropy(0.0), len(x)),
    ]:
        assert loss.item() == pytest.approx(numbers[name]["sum"], rel=2e-6), name
        assert float(size) == pytest.approx(numbers[name]["sample_size"]), name


def test_drop_path_increases_linearly_over_the_blocks(finetune_parity):
    expected = finetune_parity.numbers["drop_path_per_block"]
    encoder = EATEncoder(dim=48, depth=3, num_heads=4, drop_path=0.1, max_frames=64)
    rates = [block.drop_path.rate for block in encoder.blocks]
    assert rates == pytest.approx(expected)


def test_drop_path_preserves_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    dropped = drop(torch.ones(20000, 1, 1))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(drop.eval()(dropped), dropped)


def test_explicit_attention_in_pieces_is_torch_attention(monkeypatch):
    monkeypatch.setattr(transformer, "SCORES", 2 * 4 * 10 * 10 * 4)  # two clips
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 5, 4, 10, 8)
    keys = (torch.arange(10) < torch.tensor([[10], [3], [9], [1], [5]]))[:, None, None]
    for mask in (None, keys):
        torch.testing.assert_close(
            explicit_attention(query, key, value, mask),
            F.scaled_dot_product_attention(query, key, value, mask),
        )


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="16.*5"):
        Attention(16, 5)
