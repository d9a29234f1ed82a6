"""A pre-training Brain with a small network."""

import pytest
import torch
from speechbrain.utils.epoch_loop import EpochCounter

from eat.audio.frontend import LogMel
from eat.evaluation.collapse import CollapseMonitor
from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.pretraining.masking import InverseBlockMasking
from eat.pretraining.model import EATForPreTraining, EATStudent
from eat.pretraining.teacher import EMATeacher
from eat.training.checkpointer import AtomicCheckpointer

FRAMES, DIM, CLONES, WEIGHT, EPOCHS = 64, 16, 3, 6.0, 2


@pytest.fixture(scope="session")
def pretrain_brain():
    """Make a pre-training Brain; further settings are those of the YAML file."""

    # Imported late: eat.experiment silences what this module prints.
    from speechbrain.utils.train_logger import FileTrainLogger

    def make(
        brain_class, folder, center_momentum=None, run_opts=None, depth=2, **changed
    ):
        folder.mkdir(exist_ok=True)
        torch.manual_seed(1)
        encoder = EATEncoder(dim=DIM, depth=depth, num_heads=2, max_frames=FRAMES)
        decoder = CNNDecoder(dim=DIM, depth=depth, kernel=3, groups=2)
        student = EATStudent(encoder, decoder)
        teacher = EMATeacher(encoder, center_momentum, num_patches=FRAMES // 2)
        model = EATForPreTraining(student, teacher, WEIGHT)
        counter = EpochCounter(EPOCHS)
        recoverables = {"model": model, "epoch_counter": counter}
        hparams = {
            "seed": 1,
            "output_folder": str(folder),
            "lr": 0.01,
            "min_lr": 0.0,
            "scale_min_lr": False,
            "warmup_steps": 0,
            "total_steps": 6,
            "batch_size": 2,
            "num_workers": 0,
            "log_interval": 2,
            "keep_every_epochs": 0,
            "max_unreadable_share": 0.01,
            "tensorboard": False,
            "wandb": "none",
            "keep_epoch_models": False,
            "weight_decay": 0.05,
            "decay_vectors": True,
            "clones": CLONES,
            "ema_start": 0.9,
            "ema_end": 0.99,
            "ema_anneal_steps": 4,
            "mask_sampler": InverseBlockMasking(0.8, 0.07, (2, 2)),
            "collapse_monitor": CollapseMonitor(0.0, 0.0),
            "keep_checkpoints": 1,
            "train_logger": FileTrainLogger(str(folder / "train_log.txt")),
            "epoch_counter": counter,
            **changed,
        }
        return brain_class(
            modules={"frontend": LogMel(-4.268, 4.569, FRAMES), "model": model},
            opt_class=torch.optim.AdamW,
            hparams=hparams,
            run_opts={"device": "cpu", "noprogressbar": True, **(run_opts or {})},
            checkpointer=AtomicCheckpointer(folder / "save", recoverables),
        )

    return make
