"""The same global batch gives the same training, however it is distributed.

One process that accumulates two batches, two processes, and one process with batches of
twice the size (pre-training only: mixup pairs the clips of a batch). The file is also
the script that the processes run.
"""

import json
import sys
from pathlib import Path

import pytest
import speechbrain as sb
import torch
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger

from eat.audio.frontend import LogMel
from eat.evaluation.collapse import CollapseMonitor
from eat.experiment.process_group import init_process_group
from eat.model.classifier import EATClassifier
from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.pretraining.masking import FlexibleBlockMasking
from eat.pretraining.model import EATForPreTraining, EATStudent
from eat.pretraining.teacher import EMATeacher
from eat.utils.distributed import shutdown

sys.path.append(str(Path(__file__).parents[1]))
from recipe_modules import load_recipe  # noqa: E402

FRAMES, DIM, STEPS, CLIPS, CLASSES = 64, 16, 4, 4, 3


def settings(folder, batch_size):
    return {
        "seed": 1,
        "output_folder": folder,
        "lr": 0.01,
        "min_lr": 0.0,
        "scale_min_lr": False,
        "layer_decay": 0.7,
        "warmup_steps": 0,
        "total_steps": 2 * STEPS,
        "batch_size": batch_size,
        "steps_per_epoch": STEPS,
        "num_workers": 0,
        "max_unreadable_share": 0.01,
        "tensorboard": False,
        "wandb": "none",
        "epoch_counter": EpochCounter(2),
        "log_interval": 1,
        "keep_checkpoints": 1,
        "keep_every_epochs": 0,
        "keep_epoch_models": False,
        "weight_decay": 0.05,
        "decay_vectors": True,
        "clones": 3,
        "ema_start": 0.9,
        "ema_end": 0.99,
        "ema_anneal_steps": 4,
        "roll": True,
        "mixup_alpha": 0.8,
        "mixup_probability": 0.9,
        "spec_augment_ratio": 0.2,
        "mask_sampler": FlexibleBlockMasking(0.8, 0.07, ((3, 2), (2, 3))),
        "collapse_monitor": CollapseMonitor(0.0, 0.0),
        "train_logger": FileTrainLogger(f"{folder}/train_log.txt"),
    }


def make_clips():
    """Make clips of different loudness, with one to three labels."""
    generator = torch.Generator().manual_seed(0)
    wavs = torch.randn(CLIPS * STEPS, 9000, generator=generator) * 0.02
    labels = (torch.rand(len(wavs), CLASSES, generator=generator) < 0.5).float()
    labels[:, 0] = 1
    pairs = enumerate(zip(wavs, labels, strict=True))
    return [{"id": str(i), "sig": w * (i + 1), "target": y} for i, (w, y) in pairs]


def make_brain(kind, folder, batch_size, run_opts):
    torch.manual_seed(1)
    drop = 0.3 if kind == "finetune" else 0.0
    encoder = EATEncoder(
        dim=DIM, depth=2, num_heads=2, max_frames=FRAMES, drop_path=drop
    )
    frontend = LogMel(-4.268, 4.569, FRAMES)
    hparams = settings(folder, batch_size)
    if kind == "pretrain":
        student = EATStudent(encoder, CNNDecoder(dim=DIM, depth=2, kernel=3, groups=2))
        teacher = EMATeacher(encoder, 0.9, FRAMES // 2)
        modules = {"model": EATForPreTraining(student, teacher, utterance_weight=6.0)}
        brain_class = load_recipe("AudioSet").AudioSetPretrainBrain
    else:
        modules = {"classifier": EATClassifier(encoder, CLASSES)}
        brain_class = load_recipe("AudioSet").AudioSetFinetuneBrain
    modules["frontend"] = frontend
    return brain_class(modules, torch.optim.AdamW, hparams, run_opts)


def train(kind, folder, batch_size, *options):
    """Train two epochs of four clips per step; write losses and weights."""
    _, run_opts, _ = sb.parse_arguments(["none.yaml", "--noprogressbar", *options])
    init_process_group(run_opts)
    brain = make_brain(kind, folder, int(batch_size), run_opts)
    brain.fit_steps(make_clips(), None)
    if brain.rank == 0:
        torch.save(brain.unwrapped_model.state_dict(), Path(folder) / "weights.pt")
    shutdown()


if __name__ == "__main__":
    train(*sys.argv[1:])


def outcome(launch, folder, kind, batch_size, processes, accumulation):
    folder.mkdir()
    options = ["--device", "cpu", "--distributed_backend", "gloo"]
    options += ["--grad_accumulation_factor", str(accumulation)]
    arguments = [kind, str(folder), str(batch_size), *options]
    launch(__file__, *arguments, processes=processes)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines if '"step"' in line.split(",")[0]]
    keys = ("loss", "frame_loss", "utterance_loss", "grad_norm", "lr")
    curve = [[step.get(key, 0.0) for key in keys] for step in steps]
    assert len(curve) == 2 * STEPS
    return torch.tensor(curve), torch.load(folder / "weights.pt")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_two_processes_equal_one_that_accumulates(launch, tmp_path, kind):
    curves, weights = zip(
        outcome(launch, tmp_path / "one", kind, 2, processes=1, accumulation=2),
        outcome(launch, tmp_path / "two", kind, 2, processes=2, accumulation=1),
        strict=True,
    )
    # In both, the logged loss of fine-tuning is the mean of the batches' means.
    torch.testing.assert_close(*curves, rtol=2e-4, atol=1e-5)
    for name in weights[0]:
        torch.testing.assert_close(
            weights[0][name], weights[1][name], rtol=1e-3, atol=2e-4
        )


@pytest.mark.slow
def test_pretraining_does_not_depend_on_the_batch(launch, tmp_path):
    """Masks and noise of a clip do not depend on the other clips."""
    parts, _ = outcome(launch, tmp_path / "parts", "pretrain", 2, 1, accumulation=2)
    whole, _ = outcome(launch, tmp_path / "whole", "pretrain", 4, 1, accumulation=1)
    torch.testing.assert_close(parts, whole, rtol=2e-4, atol=1e-5)


def test_gradient_is_divided_by_the_positives_of_the_whole_step(tmp_path):
    """It is the sum over all batches, divided by their count, not a mean of means."""
    brain = make_brain("finetune", str(tmp_path), 2, {"device": "cpu"})
    brain.grad_accumulation_factor = 2
    weight = torch.zeros(1, requires_grad=True)
    totals = [(3.0, 1.0), (10.0, 4.0)]  # gradient of the sum, positives
    values = []
    for slope, count in totals:
        total = slope * (weight.sum() + 1)
        loss = brain.divide_over_step(total, torch.tensor(count), sb.Stage.TRAIN)
        values.append(loss.item())
        (loss / 2).backward()  # SpeechBrain divides by the number of batches
    assert values == pytest.approx([3.0, 2.5])  # each batch's own mean
    gradient = weight.grad / brain.gradient_divisor()
    assert gradient.item() == pytest.approx((3 + 10) / (1 + 4))
    assert brain.gradient_divisor() == 1.0  # nothing was added since
