"""One pre-training step equals the official one: losses, gradients, optimizer, EMA."""

import pytest
import torch

import eat
from eat.interop.fairseq_weights import our_name
from eat.pretraining.masking import InverseBlockMasking, Masks
from eat.pretraining.model import take
from eat.pretraining.teacher import EMATeacher, ema_decay
from eat.pretraining.ufo import average_layers, normalize_targets
from eat.training.optim import clip_divisor, gradient_norm, step_unless


@pytest.fixture
def model(parity_folder):
    return eat.load_pretraining(parity_folder / "official_pretrain.pt")


@pytest.fixture
def spec(pretrain_parity):
    return pretrain_parity["input"][:, 0]


def in_our_names(prefix, parity):
    """Return the official tensors under `prefix`, with the student's names."""
    return {
        our_name(name.removeprefix(prefix)): tensor
        for name, tensor in parity.tensors.items()
        if name.startswith(prefix)
    }


@pytest.fixture
def first_inputs(model):
    """Inputs of block 0 in the student's and in the teacher's encoder."""
    seen = {}
    for name in ("student", "teacher"):
        block = getattr(model, name).encoder.blocks[0]
        block.register_forward_pre_hook(
            lambda _, args, name=name: seen.__setitem__(name, args[0])
        )
    return seen


def test_norm_before_the_first_block(model, spec, first_inputs, pretrain_parity):
    """CLS comes first, without position; the norm is over the visible patches."""
    model(spec, pretrain_parity["masks"], pretrain_parity["decoder_noise"])
    expected = pretrain_parity["teacher_in"]
    torch.testing.assert_close(first_inputs["teacher"], expected, atol=1e-5, rtol=0)
    expected = pretrain_parity["student_in"]
    order = pretrain_parity["ids_keep"].long().argsort(dim=1)
    cls_token, visible = first_inputs["student"].split([1, 12], dim=1)
    torch.testing.assert_close(cls_token, expected[:, :1], atol=1e-5, rtol=0)
    torch.testing.assert_close(visible, take(expected[:, 1:], order), atol=1e-5, rtol=0)


def test_share_of_masked_patches(pretrain_parity):
    numbers = pretrain_parity.numbers
    config = numbers["config"]
    sampler = InverseBlockMasking(
        config["mask_prob"], config["mask_prob_adjust"], (config["mask_length"],) * 2
    )
    drawn = sampler(2, config["clone_batch"], (8, 8), torch.Generator())
    for mask in (
        drawn.mask,
        Masks.from_mask(pretrain_parity["masks"]).mask,
    ):
        assert mask.float().mean().item() == numbers["masked_pct"]
        assert mask.sum() == numbers["sample_size"]


def test_student_intermediates(model, spec, pretrain_parity):
    masks = Masks.from_mask(pretrain_parity["masks"])
    official_ids = pretrain_parity["ids_keep"].sort(dim=1).values
    assert torch.equal(masks.ids_keep, official_ids.long())
    student = model.student
    visible = student.mask(student.encoder.embed(spec), masks)
    # The official order of visible tokens is undefined: sort both.
    order = pretrain_parity["ids_keep"].long().argsort(dim=1)
    prenorm = pretrain_parity["student_in_prenorm"]
    torch.testing.assert_close(visible, take(prenorm[:, 1:], order), atol=1e-5, rtol=0)
    encoded = student.encoder.encode(visible)
    expected = pretrain_parity["student_out"]
    torch.testing.assert_close(encoded.cls, expected[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        encoded.patches, take(expected[:, 1:], order), atol=1e-5, rtol=0
    )
    grid = student.fill(encoded.patches, masks, pretrain_parity["decoder_noise"])
    torch.testing.assert_close(grid, pretrain_parity["decoder_in"], atol=1e-5, rtol=0)
    decoded = student.decoder(grid.unflatten(1, (8, 8))).flatten(1, 2)
    expected = pretrain_parity["decoder_out"]
    torch.testing.assert_close(
        student.decoder.proj(decoded), expected, atol=2e-5, rtol=0
    )
    _, predictions = student(spec, masks, pretrain_parity["decoder_noise"])
    torch.testing.assert_close(
        predictions, take(expected, masks.ids_mask), atol=2e-5, rtol=0
    )


def test_targets(model, spec, pretrain_parity):
    layers = [pretrain_parity[f"teacher_lr_{i}"] for i in range(3)]
    targets = normalize_targets(average_layers(layers))
    expected = pretrain_parity["targets"]
    torch.testing.assert_close(targets, expected, atol=4e-5, rtol=0)
    torch.testing.assert_close(model.teacher(spec), expected, atol=4e-5, rtol=0)


def official_loss(model, spec, parity):
    """Return the loss of which the official sums are the means times sample size.

    The official utterance loss is the sum over the 8 rows, times the sample size.
    """
    model.utterance_weight = 8.0
    return model(spec, parity["masks"], parity["decoder_noise"])


def test_losses(model, spec, pretrain_parity):
    result = official_loss(model, spec, pretrain_parity)
    numbers = pretrain_parity.numbers
    size, sums = numbers["sample_size"], numbers["losses"]
    frame, utterance = sums["IMAGE_regression"]["sum"], sums["cls"]["sum"]
    assert result.frame_loss.item() == pytest.approx(frame / size, rel=1e-6)
    assert 8 * result.utterance_loss.item() == pytest.approx(utterance / size, rel=1e-6)
    assert result.loss.item() == pytest.approx(numbers["loss_sum"] / size, rel=1e-6)
    # This is what the official run logs.
    assert result.loss.item() == pytest.approx(numbers["loss_logged"], rel=1e-6)


def test_gradients_and_two_steps(model, spec, pretrain_parity):
    official_loss(model, spec, pretrain_parity).loss.backward()
    parameters = dict(model.student.named_parameters())
    for name, expected in in_our_names("grad.", pretrain_parity).items():
        torch.testing.assert_close(
            parameters[name].grad, expected, atol=2e-5, rtol=1e-4
        )
    numbers = pretrain_parity.numbers
    for name, expected in numbers["grad_norms_after_div"].items():
        gradient = parameters[our_name(name)].grad
        assert gradient.norm().item() == pytest.approx(expected, rel=1e-5), name
    name = "encoder.blocks.2.mlp.fc2.weight"
    before = parameters[name].grad.clone()
    lr = numbers["adam"]["lr"]
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=lr, betas=(0.9, 0.95), weight_decay=0.05, fused=True
    )
    norm = gradient_norm(optimizer)
    assert norm.item() == pytest.approx(numbers["grad_total_norm_after_div"], rel=1e-5)
    divisors = clip_divisor(norm, numbers["clip_norm"]), 1.0  # clipped in the first
    for step, divisor in zip(("after1.", "after2."), divisors, strict=True):
        step_unless(torch.tensor(0.0), optimizer, divisor)
        clipped = before * numbers["clip_coef"]
        torch.testing.assert_close(parameters[name].grad, clipped, atol=1e-7, rtol=1e-5)
        for key, expected in in_our_names(step, pretrain_parity).items():
            # fairseq's Adam does not correct the bias of eps: 1-2% of a step. Gradients
            # that are rounding errors (key biases) are not compared.
            meant = parameters[key].grad.abs() > 1e-6
            torch.testing.assert_close(
                parameters[key].data[meant], expected[meant], atol=0.05 * lr, rtol=0
            )


def test_ema_steps(model, pretrain_parity):
    after = in_our_names("after2.", pretrain_parity)
    model.student.load_state_dict(after, strict=False)
    ema = pretrain_parity.numbers["ema"]
    decay = ema_decay(
        ema["num_updates"], ema["start"], ema["end"], ema["anneal_end_step"]
    )
    assert decay == pytest.approx(ema["decay"], rel=1e-12)
    steps = [("ema_fp32.", decay), ("ema2.", ema["second_step_decay"])]
    for prefix, step_decay in steps:
        model.teacher.update(model.student.encoder, step_decay)
        state = model.teacher.state_dict()
        expected_ema = in_our_names(prefix, pretrain_parity)
        assert len(expected_ema) >= len(after) - 2  # the decoder has no teacher
        for name in expected_ema.keys() & after.keys():
            expected = expected_ema[name]
            torch.testing.assert_close(state[name], expected, atol=3e-8, rtol=0)


@pytest.mark.parametrize("index", range(7))
def test_ema_schedule(pretrain_parity, index):
    step, decay = pretrain_parity.numbers["ema_schedule"][index]
    assert ema_decay(step) == pytest.approx(decay, rel=1e-12)


def test_teacher_stays_frozen_and_in_eval(model):
    model.train()
    assert not any(module.training for module in model.teacher.modules())
    assert not any(p.requires_grad for p in model.teacher.parameters())
    assert all(p.dtype == torch.float32 for p in model.teacher.parameters())
    teacher = EMATeacher(model.student.encoder.bfloat16())
    assert all(p.dtype == torch.float32 for p in teacher.parameters())


def test_teacher_reset_copies(model):
    model.teacher.reset(model.student.encoder)
    for own, theirs in zip(
        model.teacher.encoder.parameters(),
        model.student.encoder.parameters(),
        strict=True,
    ):
        assert torch.equal(own, theirs)


@pytest.mark.slow
def test_base_has_the_papers_size():
    from eat.model.decoder import CNNDecoder
    from eat.model.encoder import EATEncoder
    from eat.pretraining.model import EATStudent

    student = EATStudent(EATEncoder.from_preset("base"), CNNDecoder())
    count = sum(p.numel() for p in student.parameters() if p.requires_grad)
    assert round(count / 1e6, 2) == 87.84
    decoder = sum(p.numel() for p in student.decoder.parameters())
    assert round(decoder / 1e6, 2) == 2.59
