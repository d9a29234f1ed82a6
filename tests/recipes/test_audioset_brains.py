"""AudioSet's fine-tuning Brain: loss, augmentation, rates, the best epoch."""

import json

import pytest
import torch
from sklearn.metrics import average_precision_score
from speechbrain import Stage

import eat
from eat.audio.augment import mix_with_flipped
from eat.audio.frontend import LogMel
from eat.data.dataset import collate
from eat.evaluation import per_class
from eat.evaluation.per_class import read_class_ap

FRAMES, CLASSES = 64, 3
NOTHING = {
    "roll": False,
    "mixup_alpha": 0.0,
    "mixup_probability": 0.0,
    "spec_augment_ratio": 0.0,
}
MIXUP = {**NOTHING, "mixup_alpha": 2.0, "mixup_probability": 1.0}
EVERYTHING = {**MIXUP, "roll": True, "spec_augment_ratio": 0.5}


@pytest.fixture(scope="module")
def recipe(load_recipe):
    return load_recipe("AudioSet")


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1]])
    return [
        {
            "id": str(i),
            "sig": torch.randn(9000 + 300 * i, generator=generator) * 0.1 * (i + 1),
            "target": target,
        }
        for i, target in enumerate(labels)
    ]


@pytest.fixture(scope="module")
def make_brain(recipe, finetune_brain):
    def make(folder, epochs=1, brain_class=recipe.AudioSetFinetuneBrain, **changed):
        return finetune_brain(brain_class, folder, epochs, **changed)

    return make


def test_losses_are_the_official_ones(
    make_brain, tmp_path, official_classifier, finetune_parity
):
    brain, numbers = make_brain(tmp_path), finetune_parity.numbers
    x, y = finetune_parity["x"][:, 0], finetune_parity["y"]
    mixed_x, mixed_y = mix_with_flipped(x, y, 0.3)
    loss = brain.compute_objectives(
        (official_classifier(mixed_x), mixed_y), None, Stage.TRAIN
    )
    expected = numbers["bce_train_mixup0.3"]["loss_after_division"]
    assert loss.item() == pytest.approx(expected, rel=2e-6)
    brain.on_stage_start(Stage.VALID, 1)
    loss = brain.compute_objectives((official_classifier(x), y), None, Stage.VALID)
    expected = numbers["bce_eval"]["sum"] / numbers["bce_eval"]["sample_size"]
    assert loss.item() == pytest.approx(expected, rel=2e-6)


def test_batch_without_labels_has_a_loss(make_brain, tmp_path):
    brain = make_brain(tmp_path)
    outputs = torch.zeros(2, CLASSES), torch.zeros(2, CLASSES)
    loss = brain.compute_objectives(outputs, None, Stage.TRAIN)
    assert loss.item() == pytest.approx(2 * CLASSES * 0.693147, rel=1e-5)


def forward(make_brain, folder, clips, stage, step=1, **augmentation):
    """Return the wave, spectrogram and labels of a batch after augmentation."""
    brain = make_brain(folder, **augmentation)
    brain.init_optimizers()
    brain.on_stage_start(stage, 1)
    brain.step = step
    batch = collate(clips)
    if stage == Stage.TRAIN:
        brain.on_fit_batch_start(batch, True)
    seen = []
    for module in brain.modules.values():
        module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits, labels = brain.compute_forward(batch, stage)
    wav, spec = seen
    assert torch.equal(logits, brain.unwrapped_model(spec))
    return wav, spec, labels


@pytest.fixture(scope="module")
def pair(clips):
    """Two clips with one label each."""
    return clips[:2]


@pytest.fixture(scope="module")
def plain(pair):
    batch = collate(pair)
    return LogMel(-4.268, 4.569, FRAMES)(batch.wav, batch.lengths)


@pytest.mark.parametrize(
    ("stage", "settings"),
    [(Stage.VALID, EVERYTHING), (Stage.TEST, EVERYTHING), (Stage.TRAIN, NOTHING)],
)
def test_nothing_is_augmented(make_brain, tmp_path, pair, plain, stage, settings):
    wav, spec, labels = forward(make_brain, tmp_path, pair, stage, **settings)
    assert torch.equal(wav, collate(pair).wav)
    assert torch.equal(spec, plain) and torch.equal(labels, torch.eye(2, CLASSES))


@pytest.mark.parametrize("step", [1, 2, 3])
def test_mixup_mixes_clips_and_labels_alike(make_brain, tmp_path, pair, plain, step):
    _, spec, labels = forward(make_brain, tmp_path, pair, Stage.TRAIN, step, **MIXUP)
    own, other = labels[0, :2]  # shares, since every clip has one label
    assert own + other == 1 and min(own, other) > 0.05 and abs(own - other) > 0.01
    assert torch.equal(labels[1, :2], torch.stack([other, own]))
    torch.testing.assert_close(spec, own * plain + other * plain.flip(0))


@pytest.mark.parametrize("step", [2, 3])
def test_spec_augment_masks_time_and_frequency(make_brain, tmp_path, pair, plain, step):
    blanking = {**NOTHING, "spec_augment_ratio": 1.0}
    _, spec, labels = forward(make_brain, tmp_path, pair, Stage.TRAIN, step, **blanking)
    blank = spec == 0
    assert not (plain == 0).any()
    assert torch.equal(spec[~blank], plain[~blank])
    frames, bins = blank.all(dim=2), blank.all(dim=1)
    assert frames.any(dim=1).all() and bins.any(dim=1).all()
    assert torch.equal(blank, frames[:, :, None] | bins[:, None])
    assert torch.equal(labels, torch.eye(2, CLASSES))


def test_roll_shifts_and_scales_every_clip(make_brain, tmp_path, pair):
    wav, _, _ = forward(
        make_brain, tmp_path, pair, Stage.TRAIN, **{**NOTHING, "roll": True}
    )
    for rolled, clip in zip(wav, pair, strict=True):
        clip, rolled = clip["sig"], rolled[: len(clip["sig"])]
        gain = rolled.norm() / clip.norm()
        shift = (rolled.argmax() - clip.argmax()).item()
        assert 0.5 < gain < 1.5 and shift % len(clip)
        torch.testing.assert_close(rolled, gain * clip.roll(shift))


def test_every_step_has_new_random_numbers(make_brain, tmp_path, pair):
    one, again, two = (
        forward(make_brain, tmp_path, pair, Stage.TRAIN, step, **EVERYTHING)
        for step in (1, 1, 2)
    )
    for first, same, other in zip(one, again, two, strict=True):
        assert torch.equal(first, same) and not torch.equal(first, other)


@pytest.mark.parametrize("decay_vectors", [True, False])
def test_rates_and_decay(make_brain, tmp_path, clips, decay_vectors):
    brain = make_brain(tmp_path, decay_vectors=decay_vectors)
    brain.init_optimizers()
    brain.on_stage_start(Stage.TRAIN, 1)
    brain.on_fit_batch_start(collate(clips), True)
    groups = {id(p): g for g in brain.optimizer.param_groups for p in g["params"]}
    parameters = dict(brain.unwrapped_model.named_parameters())
    assert groups.keys() == {id(parameter) for parameter in parameters.values()}
    for name, parameter in parameters.items():
        group, scale = groups[id(parameter)], 1.0
        if "blocks." in name:
            scale = {"0": 0.25, "1": 0.5}[name.split("blocks.")[1][0]]
        assert group["lr_scale"] == scale, name
        assert group["lr"] == pytest.approx(0.01 * scale), name
        decays = decay_vectors or parameter.numel() > max(parameter.shape)
        assert group["weight_decay"] == (0.05 if decays else 0.0), name


# Average precision of each class in four epochs; the third is the best.
SCORES = [[0.5, 0.4, 0.6], [0.1, 0.3, 0.2], [0.7, 0.6, 0.8], [0.3, 0.5, 0.4]]


@pytest.fixture
def fit(recipe, make_brain, clips, monkeypatch):
    """Train with the given scores of the classes; record each epoch's weights."""

    def fit(folder, epochs, scores):
        class Watched(recipe.AudioSetFinetuneBrain):
            weights = {}

            def on_stage_end(self, stage, stage_loss, epoch=None):
                if stage == Stage.VALID:
                    state = self.unwrapped_model.state_dict()
                    self.weights[epoch] = {k: v.clone() for k, v in state.items()}
                    score = torch.tensor(scores[epoch - 1])
                    monkeypatch.setattr(
                        per_class, "average_precision", lambda *_: score
                    )
                super().on_stage_end(stage, stage_loss, epoch)

        brain = make_brain(folder, epochs, Watched)
        brain.fit_steps(clips, clips)
        brain.write_results(best=brain.best())
        return brain

    return fit


def check_kept(folder, weights, best, last, scores):
    """Check that model, table and results are those of the best epoch."""
    kept = eat.load_classifier(folder / "model").state_dict()
    assert kept.keys() == weights.keys()
    assert all(torch.equal(kept[name], weights[name]) for name in kept)
    config = json.loads((folder / "model" / "config.json").read_text())
    assert config["step"] == 2 * best
    table = read_class_ap(folder / "class_ap.txt")
    assert list(table) == ["a", "b", "c"]  # in the order of the outputs
    assert list(table.values()) == pytest.approx(scores[best - 1])
    results = json.loads((folder / "results.json").read_text())
    for key, epoch in (("best", best), ("last", last)):
        assert results[key]["epoch"] == epoch
        assert results[key]["mAP"] == pytest.approx(sum(scores[epoch - 1]) / CLASSES)
        assert results[key]["loss"] > 0
    assert results["best"].keys() == results["last"].keys()


@pytest.mark.parametrize(("epochs", "best"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_best_epoch_is_kept(fit, tmp_path, epochs, best):
    brain = fit(tmp_path, epochs, SCORES)
    assert len(brain.weights) == epochs
    check_kept(tmp_path, brain.weights[best], best, epochs, SCORES)


def test_of_equal_epochs_the_last_is_kept(fit, tmp_path):
    """As in the official code; model, table and metrics are of one epoch."""
    scores = [SCORES[0], SCORES[0][::-1], SCORES[1]]
    brain = fit(tmp_path, 3, scores)
    check_kept(tmp_path, brain.weights[2], 2, 3, scores)


@pytest.mark.parametrize(("after", "best"), [([0.45, 0.45, 0.45], 1), (SCORES[2], 3)])
def test_best_epoch_survives_an_interruption(fit, tmp_path, after, best):
    scores = [*SCORES[:2], after]
    first = fit(tmp_path, 2, scores)
    weights = dict(first.weights)
    then = fit(tmp_path, 3, scores)
    assert then.weights.keys() == {3}
    check_kept(tmp_path, {**weights, **then.weights}[best], best, 3, scores)


def test_score_is_that_of_the_kept_model(make_brain, tmp_path, clips):
    """The model folder alone gives the same mean average precision."""
    brain = make_brain(tmp_path, epochs=2, **EVERYTHING)
    brain.fit_steps(clips, clips)
    batch = collate(clips)
    model = eat.load_classifier(tmp_path / "model").eval()
    with torch.no_grad():
        scores = model(brain.modules.frontend(batch.wav, batch.lengths))
    expected = average_precision_score(batch.target.numpy(), scores.numpy())
    assert brain.best()["mAP"] == pytest.approx(expected)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    epochs = [record["valid_mAP"] for record in logged if record["kind"] == "epoch"]
    assert len(epochs) == 2 and brain.best()["mAP"] == max(epochs)
