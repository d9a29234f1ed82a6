"""``--compile``: one graph, compiled once, with the numbers of the module itself."""

import json
from functools import partial

import pytest
import torch
from recipe_modules import load_recipe
from torch._dynamo.utils import counters

from eat.data.samplers import EpochSampler

BATCH, STEPS = 2, 4


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "id": str(i),
            "sig": torch.randn(9000 + 300 * i, generator=generator) * 0.1,
            "target": torch.eye(3)[i % 3],
        }
        for i in range(BATCH * STEPS)
    ]


@pytest.fixture(params=["eager"])
def compiler(request, monkeypatch):
    """The compiler without code generation, by default: that takes a minute."""
    torch._dynamo.reset()
    counters.clear()
    if request.param == "eager":

        def compile(module, mode=None, **options):
            return torch_compile(module, backend="aot_eager", **options)

        torch_compile = torch.compile
        monkeypatch.setattr(torch, "compile", compile)
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield request.param
    torch._dynamo.reset()


@pytest.fixture
def train(pretrain_brain, finetune_brain, clips, tmp_path):
    """Train an epoch and validate; return the Brain and its metrics."""

    def run(kind, folder, center_momentum=None, depth=2, **run_opts):
        recipe, folder = load_recipe("AudioSet"), tmp_path / folder
        folder.mkdir()
        changed = {"run_opts": run_opts, "log_interval": 1}
        if kind == "pretrain":
            changed |= {"center_momentum": center_momentum, "depth": depth}
            brain = pretrain_brain(recipe.AudioSetPretrainBrain, folder, **changed)
        else:
            changed |= {"mixup_alpha": 0.8, "mixup_probability": 1.0}
            brain = finetune_brain(recipe.AudioSetFinetuneBrain, folder, **changed)
        brain.hparams.epoch_counter.limit = 1
        brain.opt_class = partial(torch.optim.AdamW, fused=True)
        # The last validation batch is smaller than the others.
        sampler = EpochSampler(len(clips), len(clips), seed=1)
        brain.fit_steps(clips, clips[:3], sampler)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return brain, [json.loads(line) for line in lines]

    return run


def compare(train, kind, **options):
    eager, expected = train(kind, "eager", **options)
    brain, records = train(kind, "compiled", compile=True, **options)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    assert len(records) == len(expected) > 2
    for record, other in zip(records, expected, strict=True):
        for key in record.keys() - {"kind", "clips_per_second", "data_share"}:
            assert record[key] == pytest.approx(other[key], rel=1e-4, abs=1e-6), key
    state, reference = (b.unwrapped_model.state_dict() for b in (brain, eager))
    torch.testing.assert_close(state, reference, rtol=1e-3, atol=1e-4)
    for parts in ("model.ckpt", "classifier.ckpt"):
        for path in brain.folder.glob(f"save/*/{parts}"):
            assert torch.load(path).keys() == reference.keys()


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_training(train, kind):
    compare(train, kind, grad_accumulation_factor=2)


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["inductor"], indirect=True)
def test_generated_code(compiler, train):
    compare(train, "pretrain", center_momentum=0.9, depth=1)
