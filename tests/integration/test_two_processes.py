"""Two processes train one model: the same weights on both, other clips and draws.

The file is also the script that the processes run.
"""

import json
import sys
from pathlib import Path

import pytest
import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_init_group
from speechbrain.utils.epoch_loop import EpochCounter

import eat
from eat.audio.frontend import LogMel
from eat.data.dataset import collate
from eat.data.sampling import EpochSampler
from eat.evaluation.diagnostics import CollapseMonitor
from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.pretraining.masking import InverseBlockMasking
from eat.pretraining.student import EATStudent
from eat.pretraining.teacher import EMATeacher
from eat.training.pretrain import PretrainBrain

RECIPE = Path(__file__).parents[2] / "recipes" / "AudioSet"
FRAMES, DIM, STEPS, BATCH = 64, 16, 3, 2


class Recorder(PretrainBrain):
    """Keeps clips and masks of its process."""

    def compute_forward(self, batch, stage):
        outputs = super().compute_forward(batch, stage)
        self.ids += batch.ids
        self.masks.append(outputs[2].removed)
        return outputs


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
        "log_interval": 1,
        "keep_epoch_models": False,
        "weight_decay": 0.05,
        "decay_vectors": True,
        "clones": 3,
        "utterance_weight": 6.0,
        "ema_start": 0.9,
        "ema_end": 0.99,
        "ema_anneal_steps": 4,
        "mask_sampler": InverseBlockMasking(0.8, 0.07, (2, 2)),
        "collapse_monitor": CollapseMonitor(0.0, 0.0),
    }


def train(folder, *options):
    """Take three steps in this process and write what it has then."""
    _, run_opts, _ = sb.parse_arguments(["none.yaml", "--noprogressbar", *options])
    ddp_init_group(run_opts)
    torch.manual_seed(1)
    encoder = EATEncoder(dim=DIM, depth=2, num_heads=2, max_frames=FRAMES)
    student = EATStudent(encoder, CNNDecoder(dim=DIM, depth=2, kernel=3, groups=2))
    teacher = EMATeacher(encoder, 0.9, num_patches=FRAMES // 2)
    start = [parameter.clone() for parameter in student.parameters()]
    frontend = LogMel(-4.268, 4.569, FRAMES)
    modules = {"frontend": frontend, "student": student, "teacher": teacher}
    brain = Recorder(modules, torch.optim.AdamW, settings(folder), run_opts)
    brain.ids, brain.masks = [], []
    size = STEPS * brain.clips_a_step
    wavs = torch.randn(size, 9000, generator=torch.Generator().manual_seed(0))
    clips = [{"id": str(i), "sig": wav * 0.02 * (i + 1)} for i, wav in enumerate(wavs)]
    sampler = EpochSampler(size, size, seed=1)
    loader = {"batch_size": BATCH, "collate_fn": collate, "sampler": sampler}
    brain.fit(EpochCounter(1), clips, train_loader_kwargs=loader)
    state = {
        "student": brain.bare.state_dict(),
        "teacher": brain.modules.teacher.state_dict(),
        "ids": brain.ids,
        "masks": brain.masks,
        "moved": not any(map(torch.equal, start, brain.bare.parameters())),
        "steps": brain.optimizer_step,
    }
    torch.save(state, Path(folder) / f"rank{brain.rank}.pt")


if __name__ == "__main__":
    train(*sys.argv[1:])


@pytest.mark.slow
def test_processes_stay_equal(launch, tmp_path):
    options = ["--device", "cpu", "--distributed_backend", "gloo"]
    launch(__file__, tmp_path, *options, processes=2)
    one, two = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert one["steps"] == two["steps"] == STEPS and one["moved"]
    for part in ("student", "teacher"):
        assert one[part].keys() == two[part].keys()
        for name, tensor in one[part].items():
            assert torch.equal(tensor, two[part][name]), f"{part}.{name}"
    assert one["teacher"]["centre"].abs().sum() > 0
    # They worked on different clips, under different masks.
    assert sorted(map(int, one["ids"] + two["ids"])) == list(range(2 * STEPS * BATCH))
    assert not any(map(torch.equal, one["masks"], two["masks"]))


@pytest.mark.slow
def test_recipe_in_two_processes(launch, audioset, tmp_path):
    launch(
        RECIPE / "train.py",
        RECIPE / "hparams" / "pretrain_mini.yaml",
        *("--data_folder", audioset, "--output_folder", tmp_path),
        *"--number_of_epochs 2 --steps_per_epoch 2 --batch_size 2 --clones 2".split(),
        *"--log_interval 1 --distributed_backend gloo --device cpu".split(),
        *"--precision fp32 --eval_precision fp32 --noprogressbar".split(),
        processes=2,
    )
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
    assert 0 <= results["last"]["knn_mAP"] <= 1
    assert len(list((tmp_path / "save").glob("CKPT*"))) == 1
    model = eat.load_pretraining(tmp_path / "model")
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
