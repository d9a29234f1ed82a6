"""`eat report`: the page in a browser shows what the folders of the runs tell."""

import json
import math
import shutil

import numpy as np
import pytest
import soundfile
import torch

from eat.cli import main
from eat.errors import ExperimentError
from eat.interop.loading import Checkpoint
from eat.interop.pretrained import save_model
from eat.report.charts import metric_curve, metric_names
from eat.report.page import compare_settings
from eat.report.runs import read_runs

CLASSES = ["dog", "<b>cat</b>", "rain & wind"]
PRETRAIN = """\
task: pretrain
seed: {seed}
data_folder: {data}
manifest_folder: {data}/manifests
total_steps: 30
lr: {lr}
clones: 4
mask_sampler: !apply:eat.pretraining.masking.block_masking
  mask_ratio: 0.8
  adjust: 0.07
  blocks: 2x2
"""
FINETUNE = "task: finetune\nseed: 1\ndata_folder: {data}\nlr: 0.1\n"


def save(folder, official):
    checkpoint = Checkpoint.read(official)
    load = getattr(checkpoint, checkpoint.kind)
    save_model(folder, checkpoint.config, load())


def write_metrics(folder, steps, **last):
    records = [
        {"kind": "step", "step": step, "loss": 100.0 / step, "lr": 0.1}
        for step in steps
    ]
    lines = [json.dumps(record) for record in (*records, {**records[-1], **last})]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One clip of noise in a manifest, and the preparation's counts."""
    folder = tmp_path_factory.mktemp("data")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16000)
    soundfile.write(folder / "a.wav", noise, 16000)
    (folder / "manifests").mkdir()
    rows = [f"{name},1.0,$data_root/{name}.wav," for name in ("missing", "a")]
    rows = "\n".join(["ID,duration,wav,labels", *rows])
    (folder / "manifests" / "eval.csv").write_text(rows)
    counts = {"listed": 7, "used": 5, "used_in_paper": None, "channels": {"1": 5}}
    summary = {"subsets": {"eval": counts}}
    (folder / "manifests" / "summary.json").write_text(json.dumps(summary))
    coverage = "mid,name,subset,listed,used,share\n/m/1,dog,eval,4,2,0.5\n"
    (folder / "manifests" / "coverage.csv").write_text(coverage)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, parity_folder, data):
    """Two pre-training runs, and two fine-tuning ones: multi-label and single-label."""
    root = tmp_path_factory.mktemp("runs")
    names = ["one", "two", "tags", "classes"]
    one, two, tags, classes = folders = [root / name for name in names]
    for folder in folders:
        folder.mkdir()
    for folder, seed, lr in ((one, 1, 0.1), (two, 2, 0.3)):
        text = PRETRAIN.format(data=data, seed=seed, lr=lr)
        (folder / "hyperparams.yaml").write_text(text)
        write_metrics(folder, range(10, 40, 10), kind="epoch", valid_loss=3.0)
        save(folder / "model", parity_folder / "official_pretrain.pt")
    results = {"test": {"mAP": 0.5}, "cost": {"gpu_hours": 1.25}}
    (one / "results.json").write_text(json.dumps(results))
    for folder in (tags, classes):
        (folder / "hyperparams.yaml").write_text(FINETUNE.format(data=data))
    header = f"{'Class':<50} AP\n"
    values = zip(CLASSES, (0.25, 0.75, float("nan")), strict=True)
    lines = "".join(f"{name:<50} {ap:.4f}\n" for name, ap in values)
    (tags / "class_ap.txt").write_text(header + lines)
    rows = ["true class \\ predicted class," + ",".join(CLASSES)]
    for name, counts in zip(CLASSES, ("3,1,0", "0,4,0", "2,0,5"), strict=True):
        rows.append(f"{name},{counts}")
    (classes / "confusion.csv").write_text("\n".join(rows) + "\n")
    return folders


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    """The report of all runs, opened in a browser without a network."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium")
    path = tmp_path_factory.mktemp("page") / "report.html"
    main(["report", *map(str, runs), "--out", str(path)])
    with playwright.sync_playwright() as player:
        options = {"executable_path": chromium, "args": ["--no-sandbox"]}
        browser = player.chromium.launch(**options)
        page = browser.new_page()
        problems = []
        page.on("pageerror", lambda error: problems.append(error))
        page.on("request", lambda request: problems.append(request.url))
        page.goto(path.as_uri())
        # Nothing but the page itself and the images within it.
        others = [p for p in problems if not str(p).startswith(("data:", "file:"))]
        assert not others
        yield page
        browser.close()


def cells(page, selector):
    return page.locator(selector).all_text_contents()


@pytest.mark.slow
def test_every_metric_has_a_curve_of_every_run(page):
    titles = cells(page, "#curves svg")
    assert len(titles) == 3  # loss, valid_loss, lr
    lines = page.locator('#curves [id$="-run-0"], #curves [id$="-run-1"]')
    assert lines.count() == 2 * 3


@pytest.mark.slow
def test_a_run_can_be_hidden(page):
    page.locator('input[data-run="1"]').uncheck()
    assert not page.locator("#loss-run-1").is_visible()
    assert page.locator("#loss-run-0").is_visible()
    page.locator('input[data-run="1"]').check()
    assert page.locator("#loss-run-1").is_visible()


@pytest.mark.slow
def test_masks_and_attention_are_drawn(page):
    widths = "images => images.map(image => image.naturalWidth)"
    for kind in ("masks", "attention"):
        shown = page.locator(f"#clips img.{kind}").evaluate_all(widths)
        assert len(shown) == 2 and min(shown) > 500
    # The two without a model say so.
    assert page.locator("#clips p.note").count() == 4


@pytest.mark.slow
def test_classes_are_sorted_by_average_precision(page):
    names = cells(page, "#class-ap td:first-child")
    assert names == ["<b>cat</b>", "dog", "rain & wind"]


@pytest.mark.slow
def test_confusions(page):
    rows = page.locator("#classes table:not(#class-ap) tr td").all_text_contents()
    assert rows[:6] == ["rain & wind", "dog", "2", "dog", "<b>cat</b>", "1"]


@pytest.mark.slow
def test_data_speed_results_and_settings(page):
    assert "eval" in page.locator("#data").inner_text()
    assert cells(page, "#data td.number")[:3] == ["7", "5", ""]
    assert "1.25" in page.locator("#speed").inner_text()
    assert "mAP 0.5" in page.locator("#runs").inner_text()
    marked = cells(page, "#settings tr.differ td:first-child")
    assert "lr" in marked and "data_folder" not in marked


def test_settings_of_objects_are_named_by_their_owner(runs):
    rows = {row["key"]: row for row in compare_settings(read_runs(runs[:2]))}
    assert rows["mask_sampler.blocks"]["values"] == ["2x2", "2x2"]
    assert "block_masking" in rows["mask_sampler"]["values"][0]
    assert rows["seed"]["differ"] and not rows["clones"]["differ"]


def test_logs_of_killed_runs_and_of_other_programs(tmp_path):
    (tmp_path / "hyperparams.yaml").write_text("task: pretrain\n")
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"kind": "st')
    assert read_runs([tmp_path])[0].status == "nothing logged yet"
    log.write_text('3\n{"step": 1}\n')
    with pytest.raises(ExperimentError, match="metrics.jsonl"):
        read_runs([tmp_path])
    values = {"loss": 1.0, "text": "a", "list": [1], "none": None, "large": math.inf}
    log.write_text(json.dumps({"kind": "step", "step": 1, **values}) + "\n")
    runs = read_runs([tmp_path])
    drawn = {name for name in metric_names(runs) if metric_curve(runs, name)}
    assert drawn == {"loss"}


def test_names_are_short_and_different(tmp_path):
    for name in ("a/run", "b/run"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "hyperparams.yaml").write_text("task: pretrain\n")
    both = [tmp_path / "a/run", tmp_path / "b/run"]
    assert [run.name for run in read_runs([*both, both[0]])] == ["a/run", "b/run"]
    assert [run.name for run in read_runs(both[:1])] == ["run"]


def test_the_first_run_gets_the_page_by_default(runs, tmp_path, capsys):
    folder = shutil.copytree(runs[3], tmp_path / "copy")
    for _ in range(2):  # a report may be written again
        main(["report", str(folder)])
    assert str(folder / "report.html") in capsys.readouterr().out
    assert (folder / "report.html").read_text(encoding="utf-8").count("<svg") == 1


def test_other_folders_and_files_are_refused(runs, tmp_path):
    with pytest.raises(ExperimentError, match=str(tmp_path)):
        read_runs([tmp_path])
    (tmp_path / "hyperparams.yaml").write_text("- 1\n")
    with pytest.raises(ExperimentError, match="hyperparams.yaml"):
        read_runs([tmp_path])
    (tmp_path / "hyperparams.yaml").write_text("task: pretrain\n")
    (tmp_path / "results.json").write_text('{"test": 3, "cost": [1]}')
    assert read_runs([tmp_path])[0].results == {}
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(SystemExit, match="mine.html"):
        main(["report", str(runs[0]), "--out", str(tmp_path / "mine.html")])
    assert (tmp_path / "mine.html").read_text() == "mine"


def test_a_given_clip_that_cannot_be_read_is_an_error(runs, tmp_path):
    arguments = ["--clip", "none.wav", "--out", str(tmp_path / "page.html")]
    with pytest.raises(SystemExit, match="none.wav"):
        main(["report", str(runs[0]), *arguments])
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_a_given_clip_is_drawn(runs, data, tmp_path):
    page = tmp_path / "page.html"
    main(["report", str(runs[0]), "--clip", str(data / "a.wav"), "--out", str(page)])
    assert str(data / "a.wav") in page.read_text(encoding="utf-8")


def test_long_logs_are_averaged(runs, tmp_path):
    folder = shutil.copytree(runs[0], tmp_path / "long")
    write_metrics(folder, range(1, 5001))
    (run,) = read_runs([folder])
    from eat.report.charts import MAX_POINTS, _points

    points = _points(run, "loss")
    assert len(points) == MAX_POINTS
    expected = torch.tensor(run.metrics["loss"].to_numpy()).mean()
    assert points["loss"].mean() == pytest.approx(float(expected), rel=0.1)
