"""Fine-tuning: sharded evaluation, the tested epoch, valid checkpoints."""

import json
import shutil

import pytest
import torch
from speechbrain import Stage

import eat
from eat.audio.frontend import LogMel
from eat.data.dataset import collate
from eat.data.manifest import LabelSet
from eat.errors import CheckpointError, ExperimentError
from eat.evaluation.per_class import SingleLabelEvaluation
from eat.interop.loading import Checkpoint
from eat.training import meter
from eat.training.finetune import FinetuneBrain, finetuned_modules, require_classes
from eat.utils import distributed

SEVEN = LabelSet(tuple(f"/m/c{number}" for number in range(7)), tuple("abcdefg"))


class Toy(FinetuneBrain):
    """Use the number of clips of the first class as the score."""

    metric = "score"
    evaluation = SingleLabelEvaluation()

    def compute_forward(self, batch, stage):
        self.seen.append(batch.ids)
        spec = self.modules.frontend(batch.wav, batch.lengths)
        return self.model_for(stage)(spec), batch.target

    def compute_objectives(self, predictions, batch, stage):
        logits, labels = predictions
        return (logits - labels).square().mean()

    def compute_metrics(self, logits, labels):
        return {"score": labels[:, 0].sum().item(), "clips": len(labels)}

    def write_details(self, logits, labels):
        self.details.append((logits, labels))


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(0)
    labels = torch.eye(3)
    return [
        {
            "id": str(i),
            "sig": torch.randn(9000, generator=generator) * 0.1,
            "target": labels[i % 3],
        }
        for i in range(7)
    ]


@pytest.fixture
def brain(finetune_brain, tmp_path):
    brain = finetune_brain(Toy, tmp_path)
    brain.seen, brain.details = [], []
    return brain


def evaluate(brain, clips):
    """Evaluate clips as a validation does; return the collected outputs."""
    brain.modules.eval()
    options = {**brain.loader_options(), "batch_size": 2}
    loader = brain.make_dataloader(clips, Stage.TEST, **options)
    brain.on_stage_start(Stage.TEST)
    for batch in loader:
        brain.evaluate_batch(batch, Stage.TEST)
    return brain.outputs


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_every_clip_is_evaluated_by_one_rank(brain, clips, world_size):
    everything = []
    brain.world_size = world_size
    for brain.rank in range(world_size):
        brain.seen.clear()
        outputs = evaluate(brain, clips)
        mine = [clip for ids in brain.seen for clip in ids]
        assert len(mine) in (7 // world_size, 7 // world_size + 1)
        everything += mine
        assert sum(len(logits) for logits, _ in outputs) == len(mine)
    assert sorted(everything) == [clip["id"] for clip in clips]


def test_outputs_of_all_ranks_are_gathered(brain, clips, monkeypatch):
    """Logits stay beside their labels."""
    evaluate(brain, clips)
    whole_logits, whole_labels = brain.gathered_outputs()
    shares = []
    brain.world_size = 2
    for brain.rank in range(2):
        evaluate(brain, clips)
        shares.append(brain.outputs)

    def all_gather_object(parts, mine):
        assert mine is shares[1]
        parts[:] = shares

    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather_object)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    logits, labels = brain.gathered_outputs()
    order = [0, 2, 4, 6, 1, 3, 5]
    torch.testing.assert_close(logits, whole_logits[order])
    assert torch.equal(labels, whole_labels[order])


def test_loss_is_that_of_all_clips_at_once(brain, clips):
    """It is not the mean over batches, the last of which is smaller."""
    brain.fit_steps(clips, clips)
    spec = brain.modules.frontend(*(lambda b: (b.wav, b.lengths))(collate(clips)))
    targets = torch.stack([clip["target"] for clip in clips])
    with torch.no_grad():
        expected = (brain.unwrapped_model(spec) - targets).square().mean().item()
    assert brain.last["loss"] == pytest.approx(expected, rel=1e-5)
    assert brain.last == {
        "loss": brain.last["loss"],
        "score": 3,
        "clips": 7,
        "epoch": 1,
    }
    assert brain.best() == {"loss": brain.last["loss"], "score": 3, "epoch": 1}
    assert not any(logits.requires_grad for logits, _ in brain.details)


def test_cost_is_that_of_training(finetune_brain, clips, tmp_path, monkeypatch):
    """A training batch takes a second, an evaluation batch a hundred."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    class Slow(Toy):
        def compute_forward(self, batch, stage):
            clock.now += 1 if stage == Stage.TRAIN else 100
            return super().compute_forward(batch, stage)

    clock = Clock()
    monkeypatch.setattr(meter, "time", clock)
    brain = finetune_brain(Slow, tmp_path, epochs=2)
    brain.seen, brain.details = [], []
    brain.fit_steps(clips, clips)
    brain.test(clips)
    assert clock.now > 1000 and brain.optimizer_step == 4
    cost = brain.cost()
    assert cost["hours"] == pytest.approx(4 / 3600)
    assert cost["clips_per_second"] == 2.0  # batches of two


def test_best_epoch_is_tested(brain, clips):
    """The weights after it do not matter."""
    brain.fit_steps(clips, clips)
    kept = {k: v.clone() for k, v in brain.unwrapped_model.state_dict().items()}
    with torch.no_grad():
        for parameter in brain.unwrapped_model.parameters():
            parameter.add_(1.0)
    metrics = brain.test(clips)
    assert metrics["loss"] == pytest.approx(brain.last["loss"], rel=1e-5)
    assert all(
        torch.equal(kept[k], v) for k, v in brain.unwrapped_model.state_dict().items()
    )
    assert len(brain.details) == 2  # of the best epoch, then of the test


def test_test_only_evaluates_the_given_network(finetune_brain, clips, tmp_path):
    brain = finetune_brain(Toy, tmp_path, run_opts={"test_only": True})
    brain.seen, brain.details = [], []
    weights = {k: v.clone() for k, v in brain.unwrapped_model.state_dict().items()}
    metrics = brain.test(clips)
    assert all(
        torch.equal(weights[k], v)
        for k, v in brain.unwrapped_model.state_dict().items()
    )
    [logged] = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert logged["kind"] == "test" and logged["test_loss"] == metrics["loss"]


def test_test_only_does_not_overwrite_a_run(brain, finetune_brain, clips, tmp_path):
    brain.fit_steps(clips, clips)
    before = (tmp_path / "metrics.jsonl").read_text()
    other = finetune_brain(Toy, tmp_path, run_opts={"test_only": True})
    with pytest.raises(ExperimentError, match="--output_folder") as error:
        other.test(clips)
    assert one_line(error).startswith(str(tmp_path))
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_classes_must_be_as_many_as_outputs():
    hparams = {"num_classes": 7, "data_folder": "DATA"}
    assert require_classes(SEVEN, hparams) is SEVEN
    with pytest.raises(ExperimentError, match="8.*DATA.*--num_classes 7") as error:
        require_classes(SEVEN, {**hparams, "num_classes": 8})
    one_line(error)
    with pytest.raises(ExperimentError, match="--test_only") as error:
        require_classes(SEVEN, {"data_folder": "DATA"})
    one_line(error)


@pytest.fixture(scope="module")
def official(parity_folder):
    return parity_folder / "official_finetuned.pt"


def test_official_checkpoint_is_loaded(official, finetune_parity):
    modules = finetuned_modules(official, SEVEN)
    assert modules["frontend"].num_frames == eat.load_frontend(official).num_frames
    with torch.no_grad():
        logits = modules["classifier"](finetune_parity["x"][:, 0])
    torch.testing.assert_close(logits, finetune_parity["logits"], atol=5e-6, rtol=0)
    eight = LabelSet(tuple("01234567"), tuple("abcdefgh"))
    with pytest.raises(ExperimentError, match="7 classes.* 8 "):
        finetuned_modules(official, eight)


def test_checkpoint_must_have_the_corpus_classes(brain, clips, tmp_path):
    brain.fit_steps(clips, clips)
    model, labels = brain.model_folder, brain.label_set
    modules = finetuned_modules(model, labels)
    state, expected = (
        modules["classifier"].state_dict(),
        brain.unwrapped_model.state_dict(),
    )
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    other = LabelSet(("/m/a", "/m/c", "/m/b"), ("a", "c", "b"))
    with pytest.raises(ExperimentError, match="'b'.*'c'"):
        finetuned_modules(model, other)
    with pytest.raises(ExperimentError, match="3 classes.* 7 ") as e:
        finetuned_modules(model, SEVEN)
    assert one_line(e).startswith(str(model))
    shutil.rmtree(model)
    with pytest.raises(CheckpointError) as error:
        finetuned_modules(model, labels)
    assert str(model) in one_line(error)


def test_pretrained_checkpoint_is_refused(parity_folder):
    path = parity_folder / "official_pretrain.pt"
    with pytest.raises(CheckpointError, match="pretraining") as error:
        finetuned_modules(path, SEVEN)
    assert one_line(error).startswith(str(path))


class Masked(FinetuneBrain):
    def compute_forward(self, batch, stage):
        spec = self.modules.frontend(batch.wav, batch.lengths)
        return self.model_for(stage)(spec, self.valid_frames(batch)), batch.target


@pytest.mark.parametrize("mask_padding", [True, False])
def test_padding_matters_unless_it_is_masked(finetune_brain, tmp_path, mask_padding):
    """Clips of 20 and 30 frames, padded to 32 or 64; the saved model says how."""
    brain = finetune_brain(Masked, tmp_path)
    brain.unwrapped_model.mask_padding = mask_padding
    brain.unwrapped_model.config["mask_padding"] = mask_padding
    brain.modules.eval()
    clips = [
        {"id": str(n), "sig": torch.randn(n), "target": torch.eye(3)[0]}
        for n in (19 * 160 + 400, 29 * 160 + 400)
    ]
    logits = []
    for frames in (32, 64):
        brain.modules["frontend"] = LogMel(-4.268, 4.569, frames)
        logits.append(brain.compute_forward(collate(clips), Stage.TEST)[0])
    if mask_padding:
        assert brain.valid_frames(collate(clips)).tolist() == [20, 30]
        assert brain.valid_frames(collate(clips), mixed=True).tolist() == [30, 30]
    same = torch.allclose(*logits, atol=1e-5)
    assert same == mask_padding
    brain.label_set = LabelSet(tuple("abc"), tuple("abc"))
    brain.evaluation = SingleLabelEvaluation()
    brain.write_model({})
    assert eat.load_classifier(brain.model_folder).mask_padding == mask_padding
    assert Checkpoint.read(brain.model_folder).mask_padding == mask_padding
