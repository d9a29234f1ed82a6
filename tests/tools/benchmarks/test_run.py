"""The benchmark tool on the smallest model: tables, reports, floors, wrong options."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import memory, overhead
from benchmarks.clock import Clock
from benchmarks.floor import measure_floor, passes
from benchmarks.run import main
from eat.model.operations import ALL, WEIGHTS, Convolution, Product

CPU = torch.device("cpu")
SMALLEST = ["--device", "cpu", "--preset", "tiny", "--precision", "fp32"]
SMALLEST += ["--frames", "96", "--threads", "1", "--repeats", "1"]


@pytest.fixture
def report(tmp_path):
    """Return a function that runs the tool and reads its report."""

    def run(what, *words):
        path = tmp_path / f"{what}.json"
        main([what, *words, "--json", str(path)])
        return json.loads(path.read_text())

    return run


@pytest.fixture(autouse=True)
def restored_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def check_times(record, clips, repeats=1):
    assert len(record["seconds"]) == repeats
    assert 0 < record["floor_seconds"] < min(record["seconds"])
    assert record["over_floor"] > 1 and record["over_strict_floor"] > 1
    assert record["clips_per_second"] > 0 and record["batch"] == clips


@pytest.mark.slow
def test_pretraining_step(report, capsys):
    found = report("step", *SMALLEST, "--clones", "2", "--batch", "1,2")
    assert {"command", "versions", "machine", "results"} == set(found)
    assert "tools/benchmarks/run.py step" in found["command"]
    assert {"git", "torch"} <= set(found["versions"]) and found["machine"]["cores"]
    for clips, record in enumerate(found["results"], 1):
        check_times(record, clips)
        assert {"products", "convolutions", "GELU"} <= set(record["operators"])
        phases = {"front end", "student", "teacher", "decoder", "backward", "EMA"}
        assert phases <= set(record["phases"])
        total = sum(record["phases"].values())
        assert sum(record["operators"].values()) == pytest.approx(total)
        assert record["phases"]["rest"] < 0.5 * total
    assert "x floor" in capsys.readouterr().out


def test_finetuning_step(report):
    (record,) = report("finetune", *SMALLEST)["results"]
    check_times(record, 1)
    assert record["peak_mb"] > 50 and record["phases"]["encoder and head"] > 0


def test_encoder(report):
    found = report("features", *SMALLEST, "--batch", "1,3")["results"]
    for clips, record in zip((1, 3), found["encoder"], strict=True):
        check_times(record, clips)


@pytest.mark.slow
def test_extraction_of_files(report):
    (found,) = report("features", *SMALLEST, "--clips", "40")["results"]["files"]
    assert len(found["clips_per_second"]) == 1 and found["start_seconds"][0] > 0


@pytest.mark.slow
def test_loader(report):
    words = ["--files", "2", "--clips", "4", "--batch", "2", "--repeats", "1"]
    found = report("loader", *words, "--workers", "0")["results"]
    assert len(found) == 5 and all(row["clips_per_cpu_second"][0] > 0 for row in found)


@pytest.mark.slow
def test_memory_of_processes_of_their_own(report, capsys):
    words = [*SMALLEST, "--clones", "8", "--batch", "1,16"]
    one, many = report("memory", *words)["results"]
    assert 50 < one["peak_mb"] < many["peak_mb"]
    main(["memory", *words, "--find_batch", "--limit", "0.1"])
    assert "none fits" in capsys.readouterr().out


def test_products_are_replaced_and_come_back():
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(16, 8, 3, padding=1), torch.nn.Linear(8, 4)
    x = torch.randn(2, 16, 5, 4, requires_grad=True)

    def gradients():
        y = layers[1](layers[0](x).permute(0, 2, 3, 1))
        inputs = [x, *layers[0].parameters(), *layers[1].parameters()]
        return [y, *torch.autograd.grad((y @ y.mT).sum(), inputs)]

    exact = gradients()
    library = overhead.replace_products()
    filled = gradients()
    del library
    assert [t.shape for t in filled] == [t.shape for t in exact]
    for t in filled[:2]:
        assert t.unique().item() == pytest.approx(overhead.FILLED)
    assert all(map(torch.equal, gradients(), exact))


@pytest.mark.slow
def test_overhead_is_less_than_the_step(report):
    words = ["overhead", *SMALLEST, "--precision", "bf16", "--clones", "2"]
    (record,) = report(*words)["results"]
    (whole,) = report("step", *words[1:])["results"]
    assert 0 < record["seconds"][0] < whole["seconds"][0] and record["peak_mb"] > 50


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 100])
def test_largest_batch_is_found_by_bisection(limit):
    tried = []
    assert memory.largest(lambda n: tried.append(n) or n <= limit, 1) == limit
    assert len(tried) == len(set(tried)) <= 2 * limit.bit_length() + 1
    assert memory.largest(lambda n: n <= limit, 101) == 0


def test_passes_are_those_of_autograd():
    x, weight = torch.randn(6, 4), torch.randn(3, 4)
    product = Product("p", 1, ALL, 6, 4, 3)
    shapes = [tuple(run().shape) for run in passes(product, x.dtype, CPU)]
    assert shapes == [(6, 3), tuple(weight.shape), tuple(x.shape)]
    layer = Convolution("c", 1, ALL, 2, (4, 4), 8, 6, 3, 2)
    forward, backward = passes(layer, x.dtype, CPU)
    assert forward().shape == (2, 6, 4, 4)
    assert [g.shape for g in backward()[:2]] == [(2, 8, 4, 4), (6, 4, 3, 3)]


def test_floor_adds_up_counts():
    one = Product("p", 1, WEIGHTS, 256, 256, 256)
    floor = measure_floor([one] * 8, torch.float32, Clock(CPU))
    rate = 8 * one.flops / 1e9 / floor.seconds
    assert floor.linear_gflops == pytest.approx(rate)


@pytest.mark.parametrize(
    "words",
    [
        ["step", "--preset", "huge"],
        ["step", "--frames", "100"],
        ["step", "--batch", "0"],
        ["step", "--device", "cpu", "--precision", "fp16"],
        ["step", "--json", str(Path(__file__))],
        ["memory", "--device", "cpu", "--find_batch"],
        ["nothing"],
    ],
)
def test_wrong_options_exit_with_one_line(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code
    assert "Traceback" not in capsys.readouterr().err


def test_manifest_is_the_script(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["manifest", "--help"])
    assert not stop.value.code and "--rows" in capsys.readouterr().out
