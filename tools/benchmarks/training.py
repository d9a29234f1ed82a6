"""Training steps: the recipe's Brain and settings on synthetic waveforms."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import speechbrain as sb
import torch

from benchmarks.clock import Clock
from benchmarks.measuring import (
    ROOT,
    Case,
    Variant,
    measure,
    peak_mb,
    share_table,
    time_table,
    variants,
    write_report,
)
from benchmarks.profiling import Place, profile_step, waits
from eat.audio.frontend import HOP, WINDOW
from eat.data.dataset import Batch
from eat.data.samplers import EpochSampler, RankBatches
from eat.experiment.command_line import parse_command_line
from eat.experiment.config import load_config
from eat.model.encoder import PRESETS
from eat.model.operations import (
    Operation,
    finetuning_operations,
    pretraining_operations,
)
from eat.model.patching import grid_of

RECIPE = ROOT / "recipes" / "AudioSet"
TASKS = ("step", "finetune")


def load_recipe() -> ModuleType:
    """Return the recipe's train.py as a module."""
    spec = importlib.util.spec_from_file_location("audioset", RECIPE / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with patch.object(sys, "path", [str(RECIPE), *sys.path]):  # modules beside it
        spec.loader.exec_module(module)
    return module


def synthetic_batch(clips: int, frames: int, classes: int = 0) -> Batch:
    """Return a batch of noise that fills the frames, with a label if there are any."""
    generator = torch.Generator().manual_seed(0)
    samples = (frames - 1) * HOP + WINDOW
    wav = 0.1 * torch.randn(clips, samples, generator=generator)
    target = torch.eye(classes)[torch.arange(clips) % classes] if classes else None
    return Batch(
        list(map(str, range(clips))), wav, torch.full((clips,), samples), target
    )


class Trainer:
    """A Brain with the settings of a YAML file of the recipe, ready for `fit_batch`.

    Parameters
    ----------
    task
        ``step`` of pre-training, or ``finetune``.
    variant
        Model, precision and input; its batch and threads are not used.
    device
        Device of the training.
    folder
        Folder for what a Brain writes.
    """

    def __init__(self, task: str, variant: Variant, device: str, folder: Path) -> None:
        self.task, self.variant = task, variant
        line = parse_command_line(self._arguments(device, folder))
        config = load_config(line.path, line.overrides, line.run_opts)
        torch.manual_seed(0)
        hparams, recipe = config.instantiate(), load_recipe()
        hparams["checkpointer"] = None
        brains = recipe.AudioSetPretrainBrain, recipe.AudioSetFinetuneBrain
        brain_class = brains[TASKS.index(task)]
        self.brain = brain_class.from_hparams(hparams, line.run_opts)
        self.device = torch.device(self.brain.device)
        self.brain.train_sampler = RankBatches(EpochSampler(1, 1, seed=0), 1, 0, 1)
        self.brain.on_fit_start()
        self.brain.modules.train()
        self.brain.on_stage_start(sb.Stage.TRAIN, epoch=1)

    def _arguments(self, device: str, folder: Path) -> list[str]:
        """Return the command line of the recipe for this variant."""
        variant, large = self.variant, self.variant.preset == "large"
        settings: dict[str, object] = {
            "data_folder": folder,
            "output_folder": folder,
            "device": device,
            "precision": variant.precision,
            "num_frames": variant.frames,
            "encoder": f"{{preset: {variant.preset}}}",
        }
        if self.task == "finetune":
            name = "finetune_as20k.yaml"
            settings["pretrained"] = "none"
        else:
            name = "pretrain_large.yaml" if large else "pretrain.yaml"
            settings["clones"] = variant.clones
            settings["decoder"] = f"{{dim: {PRESETS[variant.preset]['dim']}}}"
        words = [f"--{key}={value}" for key, value in settings.items()]
        if variant.compiled:
            words += ["--compile", f"--compile_mode={variant.compiled}"]
        return [str(RECIPE / "hparams" / name), *words]

    def step(self, batch: Batch) -> None:
        """Train on a batch, as `fit` does."""
        self.brain.hparams.batch_size = len(batch.ids)
        self.brain.step += 1
        self.brain.fit_batch(batch)

    def case(self, variant: Variant) -> Case:
        """Return the case of a variant that this trainer can run."""
        classes = self.brain.hparams.num_classes if self.task == "finetune" else 0
        batch = synthetic_batch(variant.batch, variant.frames, classes)
        return Case(variant, partial(self.step, batch), self.operations(variant.batch))

    def operations(self, clips: int) -> list[Operation]:
        """Return the operations of a step."""
        grid, model = grid_of(self.variant.frames), self.brain.unwrapped_model
        if self.task == "finetune":
            classes = self.brain.hparams.num_classes
            return finetuning_operations(model.encoder, classes, grid, clips)
        student, clones = model.student, self.variant.clones
        masks = self.brain.hparams.mask_sampler(1, clones, grid, torch.Generator())
        visible = masks.ids_keep.shape[1]
        networks = student.encoder, student.decoder
        return pretraining_operations(*networks, grid, visible, clones, clips)

    def places(self) -> list[Place]:
        """Return the phases of a step; a compiled model is one phase."""
        brain, model = self.brain, self.brain.unwrapped_model
        updates: list[Place] = [("optimizer", brain, "optimizers_step")]
        if self.task == "step":
            updates.append(("EMA", model.teacher, "update"))
        if self.variant.compiled:
            return [("model", brain, "compute_forward"), *updates]
        places: list[Place] = [
            ("front end and augmentation", brain, "compute_forward"),
            ("front end", brain.modules.frontend, "forward"),
            *updates,
        ]
        if self.task == "finetune":
            return [*places, ("encoder and head", model, "forward")]
        return [
            ("masks, noise and losses", brain, "compute_forward"),
            *places[1:],
            ("student", model.student.encoder, "embed"),
            ("student", model.student.encoder, "encode"),
            ("decoder", model.student.decoder, "forward"),
            ("decoder", model.student.decoder.proj, "forward"),
            ("teacher", model.teacher, "targets"),
        ]


def make_cases(
    task: str, wanted: list[Variant], device: str, folder: Path
) -> tuple[list[Case], list[Trainer]]:
    """Return a case for each variant, and its trainer."""
    shared: dict[Variant, Trainer] = {}
    cases, trainers = [], []
    for variant in wanted:
        key = replace(variant, batch=0, threads=0)
        if key not in shared:
            shared[key] = Trainer(task, variant, device, folder)
        trainers.append(shared[key])
        cases.append(shared[key].case(variant))
    return cases, trainers


def run(task: str, options: argparse.Namespace, command: str) -> None:
    """Measure the training steps; print tables, write the report."""
    wanted = variants(options)
    with tempfile.TemporaryDirectory() as folder:
        cases, trainers = make_cases(task, wanted, options.device, Path(folder))
        device = trainers[0].device
        measure(cases, options.repeats, Clock(device, options.clock))
        records: list[dict[str, Any]] = []
        for case, trainer in zip(cases, trainers, strict=True):
            record = {"variant": str(case.variant), **case.record()}
            if len(cases) == 1:  # otherwise that of all of them
                record["peak_mb"] = peak_mb(device)
            torch.set_num_threads(case.variant.threads)
            record |= profile_step(case.run, trainer.places(), device)
            record["waits"] = waits(case.run, device)
            records.append(record)
    print(time_table(records), "", share_table(records, "operators"), sep="\n")
    print("", share_table(records, "phases"), sep="\n")
    for record in records:
        for place in record["waits"]:
            print(f"{record['variant']} waits for the device: {place}")
    write_report(options.json, command, records)


def peak_of(task: str, variant: Variant, device: str) -> float:
    """Return the peak memory of two steps in MiB, in a process of their own."""
    torch.set_num_threads(variant.threads)
    with tempfile.TemporaryDirectory() as folder:
        (case,), (trainer,) = make_cases(task, [variant], device, Path(folder))
        for _ in range(2):  # the optimizer's state appears in the first
            case.run()
        return peak_mb(trainer.device)
