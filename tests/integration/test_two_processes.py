"""Two processes train one model: the same weights, different clips and random numbers.

They share its evaluation: each clip is evaluated once, and the metrics are those of one
process. The file is also the script that the processes run.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest
import speechbrain as sb
import torch
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger
from torch.nn.functional import binary_cross_entropy_with_logits

import eat
from eat.audio.frontend import LogMel
from eat.data.dataset import collate
from eat.data.manifest import LabelSet
from eat.evaluation.collapse import CollapseMonitor
from eat.evaluation.metrics import mean_average_precision
from eat.evaluation.per_class import MultiLabelEvaluation
from eat.experiment.process_group import init_process_group
from eat.model.classifier import EATClassifier
from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.pretraining.masking import InverseBlockMasking
from eat.pretraining.model import EATForPreTraining, EATStudent
from eat.pretraining.teacher import EMATeacher
from eat.training.checkpointer import AtomicCheckpointer
from eat.training.finetune import FinetuneBrain
from eat.utils.distributed import shutdown

sys.path.append(str(Path(__file__).parents[1]))
from recipe_modules import load_recipe  # noqa: E402

RECIPE = Path(__file__).parents[2] / "recipes" / "AudioSet"
FRAMES, DIM, STEPS, BATCH = 64, 16, 3, 2


class Recorder(load_recipe("AudioSet").AudioSetPretrainBrain):
    """Record the clips of this process."""

    def compute_forward(self, batch, stage):
        self.ids += batch.ids
        return super().compute_forward(batch, stage)


def settings(folder):
    return {
        "seed": 1,
        "output_folder": folder,
        "lr": 0.01,
        "min_lr": 0.0,
        "scale_min_lr": False,
        "warmup_steps": 0,
        "total_steps": STEPS,
        "batch_size": BATCH,
        "steps_per_epoch": STEPS,
        "num_workers": 0,
        "epoch_counter": EpochCounter(1),
        "log_interval": 1,
        "keep_every_epochs": 0,
        "max_unreadable_share": 0.01,
        "tensorboard": False,
        "wandb": "none",
        "keep_checkpoints": 1,
        "keep_epoch_models": False,
        "weight_decay": 0.05,
        "decay_vectors": True,
        "clones": 3,
        "ema_start": 0.9,
        "ema_end": 0.99,
        "ema_anneal_steps": 4,
        "mask_sampler": InverseBlockMasking(0.8, 0.07, (2, 2)),
        "collapse_monitor": CollapseMonitor(0.0, 0.0),
    }


def train(folder, *options):
    """Take three steps in this process and write its state."""
    _, run_opts, _ = sb.parse_arguments(["none.yaml", "--noprogressbar", *options])
    init_process_group(run_opts)
    torch.manual_seed(1)
    encoder = EATEncoder(dim=DIM, depth=2, num_heads=2, max_frames=FRAMES)
    student = EATStudent(encoder, CNNDecoder(dim=DIM, depth=2, kernel=3, groups=2))
    teacher = EMATeacher(encoder, 0.9, num_patches=FRAMES // 2)
    start = [parameter.clone() for parameter in student.parameters()]
    frontend = LogMel(-4.268, 4.569, FRAMES)
    model = EATForPreTraining(student, teacher, utterance_weight=6.0)
    modules = {"frontend": frontend, "model": model}
    brain = Recorder(modules, torch.optim.AdamW, settings(folder), run_opts)
    brain.ids, masks = [], []
    student.register_forward_hook(lambda _, inputs, __: masks.append(inputs[1].mask))
    size = STEPS * brain.clips_per_step
    wavs = torch.randn(size, 9000, generator=torch.Generator().manual_seed(0))
    clips = [{"id": str(i), "sig": wav * 0.02 * (i + 1)} for i, wav in enumerate(wavs)]
    brain.fit_steps(clips, None)
    state = {
        "model": brain.unwrapped_model.state_dict(),
        "ids": brain.ids,
        "masks": masks,
        "moved": not any(map(torch.equal, start, student.parameters())),
        "steps": brain.optimizer_step,
        "broadcast": brain.modules.model.will_sync_module_buffers(),
    }
    torch.save(state, Path(folder) / f"rank{brain.rank}.pt")


class Evaluator(FinetuneBrain):
    """Record the clips that this process evaluates."""

    evaluation = MultiLabelEvaluation()

    def compute_forward(self, batch, stage):
        if stage != sb.Stage.TRAIN:
            self.evaluated.setdefault((stage.name, self.epoch), []).extend(batch.ids)
        spec = self.modules.frontend(batch.wav, batch.lengths)
        return self.model_for(stage)(spec), batch.target

    def compute_objectives(self, predictions, batch, stage):
        return binary_cross_entropy_with_logits(*predictions)


def labeled_clips():
    """Make eight training and seven other clips, which do not divide evenly."""
    generator = torch.Generator().manual_seed(0)
    wavs = torch.randn(15, 9000, generator=generator) * 0.1
    labels = torch.eye(3)[torch.arange(15) % 3]
    clips = [
        {"id": str(i), "sig": wav * (i + 1), "target": label}
        for i, (wav, label) in enumerate(zip(wavs, labels, strict=True))
    ]
    return clips[:8], clips[8:]


def finetune(folder, *options):
    """Fine-tune for two epochs, validate after each, test, and write the results."""
    _, run_opts, _ = sb.parse_arguments(["none.yaml", "--noprogressbar", *options])
    init_process_group(run_opts)
    torch.manual_seed(1)
    encoder = EATEncoder(dim=DIM, depth=2, num_heads=2, max_frames=FRAMES)
    classifier, counter = EATClassifier(encoder, 3), EpochCounter(2)
    hparams = {
        **settings(folder),
        "layer_decay": 1.0,
        "steps_per_epoch": 2,
        "epoch_counter": counter,
        "train_logger": FileTrainLogger(f"{folder}/train_log.txt"),
    }
    recoverables = {"classifier": classifier, "epoch_counter": counter}
    modules = {"frontend": LogMel(-4.268, 4.569, FRAMES), "classifier": classifier}
    checkpointer = AtomicCheckpointer(f"{folder}/save", recoverables)
    brain = Evaluator(modules, torch.optim.AdamW, hparams, run_opts, checkpointer)
    brain.evaluated, brain.label_set = {}, LabelSet(("a", "b", "c"), ("A", "B", "C"))
    train, valid = labeled_clips()
    brain.fit_steps(train, valid)
    tested = brain.test(valid)
    state = {"evaluated": brain.evaluated, "last": brain.last, "tested": tested}
    torch.save({**state, "best": brain.best()}, Path(folder) / f"rank{brain.rank}.pt")


if __name__ == "__main__":
    {"train": train, "finetune": finetune}[sys.argv[1]](*sys.argv[2:])
    shutdown()


@pytest.mark.slow
def test_processes_keep_equal_weights(launch, tmp_path):
    options = ["--device", "cpu", "--distributed_backend", "gloo"]
    launch(__file__, "train", tmp_path, *options, processes=2)
    one, two = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert one["steps"] == two["steps"] == STEPS and one["moved"]
    assert not one["broadcast"]  # of buffers, in every forward pass
    assert one["model"].keys() == two["model"].keys()
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, two["model"][name]), name
    assert one["model"]["teacher.center"].abs().sum() > 0
    # They have different clips and masks.
    assert sorted(map(int, one["ids"] + two["ids"])) == list(range(2 * STEPS * BATCH))
    assert not any(map(torch.equal, one["masks"], two["masks"]))


@pytest.mark.slow
def test_processes_share_the_evaluation(launch, tmp_path):
    options = ["--device", "cpu", "--distributed_backend", "gloo"]
    launch(__file__, "finetune", tmp_path, *options, processes=2)
    one, two = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    for stage in (("VALID", 1), ("VALID", 2), ("TEST", 0)):
        mine, other = one["evaluated"][stage], two["evaluated"][stage]
        assert len(mine) == 4 and len(other) == 3
        assert sorted(map(int, mine + other)) == list(range(8, 15))
    for key in ("last", "tested", "best"):
        assert one[key] == two[key]
    # The same from the best epoch's model in one process.
    batch = collate(labeled_clips()[1])
    model = eat.load_classifier(tmp_path / "model")
    frontend = eat.load_frontend(tmp_path / "model")
    with torch.no_grad():
        logits = model(frontend(batch.wav, batch.lengths))
    loss = binary_cross_entropy_with_logits(logits, batch.target).item()
    expected = {"loss": loss, "mAP": mean_average_precision(logits, batch.target)}
    assert one["tested"] == pytest.approx(expected, rel=1e-5)
    best = {key: one["best"][key] for key in expected}
    assert best == pytest.approx(expected, rel=1e-5)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [r["kind"] for r in records if r["kind"] != "step"] == [
        "epoch",
        "epoch",
        "test",
    ]


@pytest.mark.slow
def test_recipe_tests_in_two_processes(launch, run_recipe, audioset, tmp_path):
    """Eleven clips are readable, the twelfth is not."""
    corpus = tmp_path / "AudioSet"
    shutil.copytree(audioset, corpus)
    min((corpus / "audio" / "eval").iterdir()).write_text("no such video")
    short = ["--number_of_epochs", 1, "--steps_per_epoch", 1, "--batch_size", 4]
    options = [*short, "--pretrained", "none"]
    trained = run_recipe(
        "AudioSet", "finetune_mini", corpus, tmp_path / "run", *options
    )
    launch(
        RECIPE / "train.py",
        RECIPE / "hparams" / "finetune_mini.yaml",
        *("--data_folder", corpus, "--output_folder", tmp_path / "test"),
        *("--pretrained", tmp_path / "run" / "model", "--test_only"),
        *"--batch_size 4 --distributed_backend gloo --device cpu".split(),
        *"--precision fp32 --eval_precision fp32 --noprogressbar".split(),
        processes=2,
    )
    tested = json.loads((tmp_path / "test" / "results.json").read_text())
    assert tested["data"]["eval"]["used"] == 11
    best = {key: trained["best"][key] for key in ("loss", "mAP")}
    assert tested["test"] == pytest.approx(best, rel=1e-5)
    tables = [(tmp_path / run / "class_ap.txt").read_text() for run in ("run", "test")]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_recipe_in_two_processes(launch, audioset, tmp_path):
    def run(folder, processes, accumulation):
        launch(
            RECIPE / "train.py",
            RECIPE / "hparams" / "pretrain_mini.yaml",
            *("--data_folder", audioset, "--output_folder", folder),
            *"--number_of_epochs 2 --steps_per_epoch 2 --batch_size 2".split(),
            *"--clones 2 --held_out 0.2 --num_workers 0 --log_interval 1".split(),
            *"--distributed_backend gloo --device cpu --noprogressbar".split(),
            *"--precision fp32 --eval_precision fp32".split(),
            *("--grad_accumulation_factor", str(accumulation)),
            processes=processes,
        )

    run(tmp_path / "one", processes=1, accumulation=2)
    one = json.loads((tmp_path / "one" / "results.json").read_text())
    tmp_path = tmp_path / "two"
    run(tmp_path, processes=2, accumulation=1)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [
        (record["kind"], record["epoch"], record["step"]) for record in records
    ] == [
        ("step", 1, 1),
        ("step", 1, 2),
        ("epoch", 1, 2),
        ("step", 2, 3),
        ("step", 2, 4),
        ("epoch", 2, 4),
    ]
    assert len((tmp_path / "train_log.txt").read_text().splitlines()) == 2
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["steps"] == 4 and results["clips_seen"] == 4 * 2 * 2
    # Validation has five clips: two batches on one process, one on the other.
    assert results["last"] == pytest.approx(one["last"], rel=1e-5)
    assert len(list((tmp_path / "save").glob("CKPT*"))) == 2
    model = eat.load_pretraining(tmp_path / "model")
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
