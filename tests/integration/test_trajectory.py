"""Training follows the official trainer: 60 updates of pre-training, 30 of fine-tuning.

The official code trained a tiny model; its clips, masks and mixing weights were
recorded (see the README beside the fixtures). Here the real Brains train the same model
on the recorded inputs with fairseq's variant of Adam. This covers what a single step
cannot show: the schedules, when the teacher moves, the optimizer's state, clipping,
weight decay and layer-wise learning rates. It cannot tell one clipping limit from
another, since every update is clipped and Adam's steps do not depend on a common factor
of the gradients.
"""

import json

import numpy as np
import pytest
import torch
from recorded_training import (
    RecordedClips,
    RecordedMasks,
    StateRecorder,
    assert_same_norms,
    assert_same_weights,
    close,
    in_our_names,
    logged,
    official_state,
    settings,
    state_of,
    train,
)
from safetensors.torch import load_file

import eat
from eat.audio.augment import mix_with_flipped
from eat.evaluation.collapse import CollapseMonitor
from eat.model.classifier import EATClassifier


@pytest.fixture(scope="module")
def recorded(parity_folder):
    """The folder of the recording, replayed on one thread as it was made."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield parity_folder / "trajectory"
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def inputs(recorded):
    """Spectrograms `[12, T, F]` and the masks of all updates `[60, 12, N]`."""
    arrays = np.load(recorded / "clips.npz")
    clips = torch.from_numpy(arrays["clips"]).float() / 64
    masks = torch.from_numpy(np.unpackbits(arrays["mask_bits"], axis=-1))
    return clips, masks


# -- pre-training --------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrain_numbers(recorded):
    return json.loads((recorded / "pretrain.json").read_text())


@pytest.fixture(scope="module")
def pretrained(recorded, inputs, pretrain_numbers, load_recipe, tmp_path_factory):
    """The AudioSet recipe's Brain after 60 updates from the official start."""
    recipe = load_recipe("AudioSet")

    class RecordedPretrainBrain(StateRecorder, recipe.AudioSetPretrainBrain):
        pass

    clips, masks = inputs
    numbers, optimizer = pretrain_numbers, pretrain_numbers["optimiser"]
    ema, config = numbers["ema"], numbers["config"]
    model = eat.load_pretraining(recorded / "official_start.pt")
    model.student.mask_noise_std = config["mask_noise_std"]
    # The official utterance loss is a sum over the rows of a batch, ours a mean.
    model.utterance_weight = config["cls_loss"] * numbers["rows"]
    folder = tmp_path_factory.mktemp("pretrain")
    hparams = {
        **settings(folder, optimizer, numbers["batch"], numbers["updates"]),
        "clones": config["clone_batch"],
        "ema_start": ema["start"],
        "ema_end": ema["end"],
        "ema_anneal_steps": ema["anneal_end_step"],
        "mask_sampler": RecordedMasks(masks),
        "collapse_monitor": CollapseMonitor(0.0, 0.0),
    }
    return train(
        RecordedPretrainBrain,
        {"model": model},
        hparams,
        optimizer,
        RecordedClips(clips),
        numbers["per_update"]["clips"],
    )


def test_pretraining_losses(pretrained, pretrain_numbers):
    official = {k: np.array(v) for k, v in pretrain_numbers["per_update"].items()}
    size, rows = official["sample_size"], pretrain_numbers["rows"]
    utterance_loss = official["utterance_loss_sum"] / size / rows
    close(logged(pretrained, "frame_loss"), official["frame_loss_sum"] / size, 2e-6)
    close(logged(pretrained, "utterance_loss"), utterance_loss, 2e-6)
    close(logged(pretrained, "loss"), official["loss_sum"] / size, 2e-6)
    close(logged(pretrained, "prediction_std"), official["pred_var"], 2e-6)


def test_pretraining_gradient_norms(pretrained, pretrain_numbers):
    official = pretrain_numbers["per_update"]["grad_norm"]
    assert min(official) > pretrain_numbers["optimiser"]["clip_norm"]  # all clipped
    close(logged(pretrained, "grad_norm"), official, 5e-6)


def test_pretraining_schedules(pretrained, pretrain_numbers):
    official = pretrain_numbers["per_update"]
    close(logged(pretrained, "lr"), official["lr"], 1e-12, 1e-18)
    # Ours moves the teacher after an update, the official one before the next.
    decays = [*official["ema_decay"][1:], official["ema_decay_next"]]
    close(logged(pretrained, "ema_decay"), decays, 1e-12)


@pytest.mark.parametrize("update", [0, 1, 10, 30, 60])
def test_pretraining_norms(pretrained, pretrain_numbers, update):
    official = pretrain_numbers["norms"][str(update)]
    assert_same_norms(pretrained.states[update], official["student"], 1e-6)
    # The official teacher moves at the start of the next update: after an update it
    # is still the one that computed that update's targets.
    teacher = pretrained.teachers[max(update - 1, 0)]
    assert_same_norms(teacher, official["teacher"], 1e-6)


def test_pretraining_norms_of_the_last_teacher(pretrained, pretrain_numbers):
    official = pretrain_numbers["norms"]["after the next teacher step"]["teacher"]
    assert_same_norms(state_of(pretrained.unwrapped_model.teacher), official, 1e-6)


def test_pretraining_weights_at_the_end(recorded, pretrained):
    student, teacher = official_state(recorded / "official_end.pt")
    assert_same_weights(pretrained.states[-1], student, 5e-6)
    assert_same_weights(pretrained.teachers[-1], teacher, 5e-6)


# -- fine-tuning ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def finetune_numbers(recorded):
    return json.loads((recorded / "finetune.json").read_text())


@pytest.fixture(scope="module")
def finetune_tensors(recorded):
    return load_file(recorded / "finetune.safetensors")


@pytest.fixture(scope="module")
def make_classifier(recorded, finetune_numbers, finetune_tensors):
    """Make the classifier as it was before the first update."""

    def make():
        encoder = eat.load_encoder(recorded / "official_end.pt")
        classifier = EATClassifier(encoder, finetune_numbers["config"]["num_classes"])
        head = {
            name.removeprefix("start."): tensor
            for name, tensor in finetune_tensors.items()
            if name.startswith("start.")
        }
        state = {**classifier.state_dict(), **in_our_names(head)}
        classifier.load_state_dict(state)
        return classifier.eval()

    return make


@pytest.fixture(scope="module", params=["mixup", "plain"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def finetuned(
    kind,
    make_classifier,
    inputs,
    finetune_numbers,
    finetune_tensors,
    load_recipe,
    tmp_path_factory,
):
    """The AudioSet recipe's Brain after 30 updates with the recorded lambdas."""
    numbers, optimizer = finetune_numbers, finetune_numbers["optimiser"]
    config, updates = numbers["config"], numbers["runs"][kind]["per_update"]
    recipe, lambdas = load_recipe("AudioSet"), iter(updates["lambda"])

    class RecordedFinetuneBrain(StateRecorder, recipe.AudioSetFinetuneBrain):
        pass

    def recorded_mixup(spec, labels, *_):
        return mix_with_flipped(spec, labels, next(lambdas))

    folder = tmp_path_factory.mktemp(kind)
    hparams = {
        **settings(folder, optimizer, config["batch"], config["updates"]),
        "layer_decay": config["layer_decay"],
        "roll": config["roll"],
        "spec_augment_ratio": 0.0,
        "mixup_alpha": config["mixup_alpha"],
        "mixup_probability": config["mixup_probability"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "mixup", recorded_mixup)
        return train(
            RecordedFinetuneBrain,
            {"classifier": make_classifier()},
            hparams,
            optimizer,
            RecordedClips(inputs[0], finetune_tensors["labels"]),
            updates["clips"],
        )


@pytest.fixture(scope="module")
def official_run(kind, finetune_numbers):
    return finetune_numbers["runs"][kind]


def test_finetuning_losses(finetuned, official_run):
    official = {
        k: np.array(v) for k, v in official_run["per_update"].items() if k != "lr"
    }
    losses = official["loss_sum"] / official["sample_size"]
    close(logged(finetuned, "loss"), losses, 2e-6)
    close(logged(finetuned, "grad_norm"), official["grad_norm"], 5e-6)


def test_finetuning_rates(finetuned, finetune_numbers, official_run):
    """Block 0's peak is below `min_lr`, so its rate stays constant."""
    decay, depth = finetune_numbers["config"]["layer_decay"], 3
    official = official_run["per_update"]["lr"]
    for group, scale in [
        *((f"blocks.{i}", decay ** (depth - i)) for i in range(depth)),
        ("other", 1.0),
    ]:
        rates = [update[scale] for update in finetuned.rates]
        close(rates, official[group], 1e-12, 1e-18)
    assert len(set(official["blocks.0"])) == 1


@pytest.mark.parametrize("update", [1, 10, 30])
def test_finetuning_norms(finetuned, official_run, update):
    official = official_run["norms"][str(update)]
    assert_same_norms(finetuned.states[update], official, 1e-6)


def test_finetuning_logits(
    kind, make_classifier, inputs, finetuned, finetune_numbers, finetune_tensors
):
    spec = inputs[0][finetune_numbers["logits_of_clips"]]
    for when, classifier in (
        ("before", make_classifier()),
        ("after", finetuned.unwrapped_model),
    ):
        official = finetune_tensors[f"{kind}.logits_{when}"]
        with torch.no_grad():
            logits = classifier.eval()(spec)
        close(logits, official, abs=2e-6 * official.abs().max())


@pytest.mark.parametrize("kind", ["mixup"], indirect=True, scope="module")
def test_finetuning_weights_at_the_end(kind, finetuned, finetune_tensors):
    prefix = f"{kind}.end."
    official = {
        name.removeprefix(prefix): tensor
        for name, tensor in finetune_tensors.items()
        if name.startswith(prefix)
    }
    assert_same_weights(finetuned.states[-1], official, 5e-6)
