"""A step of the pre-training Brain: the loss of the model, new masks and noise."""

import copy

import pytest
import torch
from recipe_modules import load_recipe
from speechbrain import Stage

from eat.audio.frontend import LogMel
from eat.data.dataset import collate
from eat.data.samplers import EpochSampler
from eat.pretraining.model import EATForPreTraining

PretrainBrain = load_recipe("AudioSet").AudioSetPretrainBrain
FRAMES, CLONES, WEIGHT, NOISE = 64, 3, 6.0, 0.3
STEPS = 3


class Watched(PretrainBrain):
    """Record the masks and the noise of every batch, by stage."""

    def watch(self):
        self.masks = {stage: [] for stage in Stage}
        self.noise = {stage: [] for stage in Stage}
        student = self.unwrapped_model.student
        draw = student.draw_noise

        def recorded(batch, masks, *args):
            self.masks[self.stage].append(masks.mask)
            self.noise[self.stage].append(draw(batch, masks, *args))
            return self.noise[self.stage][-1]

        student.draw_noise = recorded
        return self

    def compute_forward(self, batch, stage):
        self.stage = stage
        return super().compute_forward(batch, stage)


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "id": str(i),
            "sig": torch.randn(9000 + 300 * i, generator=generator) * 0.1 * (i + 1),
        }
        for i in range(6)
    ]


@pytest.fixture(scope="module")
def make_brain(pretrain_brain):
    def make(folder, center_momentum=None, seed=1):
        brain = pretrain_brain(Watched, folder, center_momentum, seed=seed)
        model = brain.unwrapped_model
        model.student.mask_noise_std = NOISE
        with torch.no_grad():  # as after some training: not a copy of the student
            for parameter in model.teacher.parameters():
                parameter += 0.05 * torch.randn(parameter.shape)
        return brain.watch()

    return make


def fit(brain, clips):
    brain.fit_steps(clips, clips[:4], EpochSampler(len(clips), 2 * STEPS, seed=1))
    return brain


def forward(brain, clips):
    """Return the first step's batch, its outputs and its loss."""
    brain.init_optimizers()
    brain.modules.train()
    brain.on_stage_start(Stage.TRAIN, 1)
    brain.step, batch = 1, collate(clips)
    brain.on_fit_batch_start(batch, True)
    outputs = brain.compute_forward(batch, Stage.TRAIN)
    return batch, outputs, brain.compute_objectives(outputs, batch, Stage.TRAIN)


@pytest.mark.parametrize("center_momentum", [None, 0.9])
def test_loss_is_that_of_the_model(make_brain, tmp_path, clips, center_momentum):
    brain = make_brain(tmp_path, center_momentum)
    student, teacher = copy.deepcopy(
        (brain.unwrapped_model.student, brain.unwrapped_model.teacher)
    )
    del student.draw_noise  # the recorder of the other one
    model = EATForPreTraining(student, teacher, WEIGHT)
    batch, outputs, loss = forward(brain, clips[:2])
    [masks], [noise] = brain.masks[Stage.TRAIN], brain.noise[Stage.TRAIN]
    assert masks.shape == (2 * CLONES, FRAMES // 2)
    spec = LogMel(-4.268, 4.569, FRAMES)(batch.wav, batch.lengths)
    expected = model(spec, masks, noise)
    assert loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    for part in ("frame_loss", "utterance_loss"):
        own, theirs = getattr(outputs, part), getattr(expected, part)
        assert own.item() == pytest.approx(theirs.item(), rel=1e-6), part
    torch.testing.assert_close(outputs.targets, expected.targets, atol=1e-6, rtol=0)
    loss.backward()
    expected.loss.backward()
    for own, theirs in zip(
        brain.unwrapped_model.student.parameters(), student.parameters(), strict=True
    ):
        torch.testing.assert_close(own.grad, theirs.grad, atol=1e-6, rtol=1e-4)


def test_clips_of_a_batch_do_not_mix(make_brain, tmp_path, clips):
    """Predictions and targets of a clip do not depend on the other clips."""
    pairs = []
    for pair in (clips[:2], [clips[0], clips[5]]):
        brain, seen = make_brain(tmp_path), []
        brain.unwrapped_model.student.register_forward_hook(
            lambda module, inputs, output, seen=seen: seen.extend(output)
        )
        _, outputs, _ = forward(brain, pair)
        pairs.append((outputs.targets, *seen))
    for own, theirs in zip(*pairs, strict=True):
        first, second = (own - theirs).abs().flatten(1).amax(dim=1).chunk(2)
        assert (first < 1e-5).all() and (second > 1e-3).all()


@pytest.fixture(scope="module")
def whole(make_brain, tmp_path_factory, clips):
    """A run of two epochs of three steps."""
    return fit(make_brain(tmp_path_factory.mktemp("whole")), clips)


def different(tensors):
    return len({tensor.numpy().tobytes() for tensor in tensors})


def test_every_step_has_new_masks_and_noise(whole):
    masks, noise = whole.masks[Stage.TRAIN], whole.noise[Stage.TRAIN]
    assert len(masks) == len(noise) == different(masks) == different(noise) == 6
    # So has every clone of a step; small masks may agree by chance.
    assert different(torch.cat(masks)) > 30
    assert different(torch.cat(noise)) == 6 * 2 * CLONES
    assert torch.cat(noise).std().item() == pytest.approx(0.3, rel=0.05)


def test_masks_and_noise_are_a_function_of_the_seed(whole, make_brain, tmp_path, clips):
    torch.manual_seed(99)  # another process has another global state
    again, other = (fit(make_brain(tmp_path, seed=s), clips) for s in (1, 2))
    for stage in (Stage.TRAIN, Stage.VALID):
        for kind in ("masks", "noise"):
            drawn, same, new = (getattr(b, kind)[stage] for b in (whole, again, other))
            assert all(map(torch.equal, drawn, same))
            assert not any(map(torch.equal, drawn, new))


def test_validation_has_the_same_masks_in_every_epoch(whole):
    for drawn in (whole.masks[Stage.VALID], whole.noise[Stage.VALID]):
        assert len(drawn) == 4 and different(drawn) == 2
        first, second = drawn[:2], drawn[2:]
        assert all(map(torch.equal, first, second))
    assert different(whole.masks[Stage.VALID] + whole.masks[Stage.TRAIN]) == 8
