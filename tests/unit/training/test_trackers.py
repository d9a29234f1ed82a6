"""TensorBoard and Weights & Biases show what metrics.jsonl says, resumed or not."""

import json
import sys
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eat.errors import ExperimentError
from eat.training import metrics_logger
from eat.training.finetune import FinetuneBrain
from eat.training.metrics_logger import MetricsLogger


def metrics(folder):
    """All numbers of metrics.jsonl: (name, step) -> value."""
    found = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        kind, _, step = (record.pop(key) for key in ("kind", "epoch", "step"))
        for name, value in record.items():
            if value is not None:
                found[f"{kind}/{name}", step] = pytest.approx(value, rel=1e-6)
    return found


def on_tensorboard(folder):
    events = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0}).Reload()
    shown = [(n, e) for n in events.Tags()["scalars"] for e in events.Scalars(n)]
    found = {(name, event.step): event.value for name, event in shown}
    assert len(found) == len(shown)  # none twice
    return found


@pytest.fixture
def wandb(monkeypatch):
    """Substitutes the package: a run is its id, and keeps what it is given."""
    runs = {}

    class Run:
        def __init__(self, **options):
            self.options, self.step, self.logged = options, 0, {}

        def log(self, values, step):
            assert step >= self.step  # others would be dropped
            self.step = step
            self.logged |= {(name, step): value for name, value in values.items()}

    def init(**options):
        run = runs.setdefault(options["id"], Run(**options))
        assert run.options == options and options["resume"] == "allow"
        return run

    module = types.ModuleType("wandb")
    module.init = init
    module.__spec__ = types.SimpleNamespace(name="wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def write(logs, steps):
    for step in steps:
        record = {"loss": 1 / step, "lr": 0.1 * step, "bad": float("nan")}
        logs.write("step", 1, step, record)
        if step % 3 == 0:
            logs.write("epoch", 1, step, {"valid_loss": 2 / step})


def test_resumed_run(tmp_path, wandb):
    """The records after the checkpoint of step 4 are written twice."""
    first = MetricsLogger(tmp_path, tensorboard=True, wandb="project")
    write(first, range(1, 5))
    marks = first.sync()
    write(first, range(5, 8))
    assert on_tensorboard(tmp_path) == metrics(tmp_path)
    second = MetricsLogger(tmp_path, tensorboard=True, wandb="project")
    second.resume(marks, 4, epoch_ended=False, backup=False)
    write(second, range(5, 10))
    second.write("test", 0, 9, {"test_mAP": 0.5, "clips": 7})
    assert len(metrics(tmp_path)) == 9 * 2 + 3 + 2
    assert on_tensorboard(tmp_path) == metrics(tmp_path)
    [run] = wandb.values()
    assert run.logged == metrics(tmp_path)
    assert run.options["project"] == "project"


def test_switched_on_in_the_middle(tmp_path, wandb):
    write(MetricsLogger(tmp_path), range(1, 5))
    assert not (tmp_path / "tensorboard").exists() and not wandb
    write(MetricsLogger(tmp_path, tensorboard=True, wandb="other"), range(5, 7))
    [run] = wandb.values()
    assert on_tensorboard(tmp_path) == metrics(tmp_path) == run.logged


def test_only_the_main_process_writes(tmp_path, monkeypatch, wandb):
    monkeypatch.setattr(metrics_logger, "if_main_process", lambda: False)
    write(MetricsLogger(tmp_path, tensorboard=True, wandb="project"), [1])
    assert not list(tmp_path.iterdir()) and not wandb


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_missing_packages_are_named_before_training(tmp_path, monkeypatch, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options = {"tensorboard": True} if package == "tensorboard" else {"wandb": "a"}
    with pytest.raises(ExperimentError, match=f"pip install {package}") as error:
        MetricsLogger(tmp_path, **options)
    assert "\n" not in str(error.value)


def test_a_run_by_its_yaml(finetune_brain, tmp_path):
    brain = finetune_brain(FinetuneBrain, tmp_path, tensorboard=True)
    brain.epoch = 1
    brain.log("step", {"loss": 0.5})
    assert on_tensorboard(tmp_path) == {("step/loss", 0): 0.5}
