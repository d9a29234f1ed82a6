"""The quick start: equal settings for both initializations, and its report."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from paper_tables.jobs import Job
from quickstart.report import report_text
from quickstart.run import JobFactory, TrainingLengths, best_learning_rate
from quickstart.scores import SYSTEMS, draw_scores, pool, table_rows

ROOT = Path(__file__).resolve().parents[2]


def make_factory(seed):
    return JobFactory(TrainingLengths(), Path("DATA"), Path("OUT"), seed)


def test_both_initializations_get_the_same_steps_and_seeds():
    factory = make_factory(seed=1)
    scratch, tuned = (
        factory.finetunings(start, 0.001) for start in ("scratch", "pre-trained")
    )
    assert len(scratch) == len(tuned) == 3
    for one, other in zip(scratch, tuned, strict=True):
        differing = {k for k in one.settings if one.settings[k] != other.settings[k]}
        assert differing == {"pretrained"}
        assert one.settings["pretrained"] == "none" and one.steps == other.steps
        assert one.settings["held_out"] == 0
    # Another pre-training seed has other fine-tuning seeds.
    other = make_factory(seed=2).finetunings("scratch", 0.1)
    seeds = {job.settings["seed"] for job in scratch}
    assert not seeds & {job.settings["seed"] for job in other}
    # Learning rates are selected on training clips; each run has its own folder.
    search = factory.search("scratch") + factory.search("pre-trained")
    assert all(job.settings["held_out"] == 0.2 for job in search)
    assert len({job.folder for job in search + scratch + tuned}) == len(search) + 6


def test_settings_of_the_published_numbers():
    factory = make_factory(seed=0)
    published = json.loads(
        (ROOT / "results/published/quickstart_seed0.json").read_text()
    )
    starts = ("scratch", "pre-trained")
    jobs = [factory.pretraining()]
    jobs += [job for start in starts for job in factory.finetunings(start, 0.0005)]
    jobs += [job for start in starts for job in factory.search(start)]
    assert {job.name for job in jobs} == published["seconds"].keys()
    assert jobs[0].steps == published["pretraining_steps"]
    assert jobs[1].steps == published["finetune_steps"]


def test_best_learning_rate(tmp_path):
    jobs = []
    for lr, score in [(0.1, 0.3), (0.2, 0.5), (0.3, 0.4)]:
        folder = tmp_path / str(lr)
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps({"last": {"mAP": score}}))
        jobs.append(Job("x", folder, Path(), "x.yaml", {"lr": lr}, 1))
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(lambda job=job: job) for job in jobs]
        assert best_learning_rate(futures) == 0.2


def test_table_shows_every_run():
    results = {key: [0.1, 0.3] for _, _, key in SYSTEMS} | {"chance": 0.05}
    results["pretrained_frozen"] = 0.4
    rows = table_rows(results)
    means = [row["mAP"] for row in rows]
    assert means == pytest.approx([0.05, 0.2, 0.2, 0.4, 0.2, 0.2])
    assert rows[1]["runs"] == "0.100, 0.300"
    assert rows[1]["std"] == pytest.approx(0.02**0.5)
    assert "runs" not in rows[3]


def test_scores_of_several_seeds_are_pooled(tmp_path):
    paths = []
    for seed, score in ((0, 0.1), (1, 0.3)):
        results = dict.fromkeys((key for _, _, key in SYSTEMS), 0.2)
        results |= {"untrained_frozen": [0.3, 0.4], "pretrained_frozen": score}
        paths.append(tmp_path / f"quickstart_seed{seed}.json")
        paths[-1].write_text(json.dumps({"chance": 0.05, **results}))
    pooled = pool(paths)
    assert pooled["untrained_frozen"] == [0.3, 0.4]  # the same runs in both files
    assert pooled["pretrained_frozen"] == [0.1, 0.3]
    assert [row.get("n") for row in table_rows(pooled)] == [
        None,
        None,
        2,
        2,
        None,
        None,
    ]
    draw_scores(pooled, tmp_path / "scores.png")
    assert 0 < (tmp_path / "scores.png").stat().st_size < 1e5


def test_pages_have_the_published_scores():
    pooled = pool(sorted((ROOT / "results/published").glob("quickstart_seed*.json")))
    rows = {row[""]: f"{row['mAP']:.3f}" for row in table_rows(pooled)}
    page = (ROOT / "docs/quickstart.md").read_text()
    for name, score in rows.items():
        assert f"\n| {name} | {score} |" in page, name
    table = (
        (ROOT / "README.md")
        .read_text()
        .split("chance |")[0]
        .split("frozen features")[1]
    )
    shown = [word for word in table.replace("*", "").split() if word.startswith("0.")]
    assert shown == [
        rows["untrained network, frozen"],
        rows["from scratch, fine-tuned"],
        rows["pre-trained, frozen"],
        rows["pre-trained, fine-tuned"],
        rows["log-mel statistics, frozen"],
    ]


def test_report_of_published_results():
    path = ROOT / "results/published/quickstart_seed0.json"
    results = json.loads(path.read_text())
    jobs = {"pretraining": [make_factory(0).pretraining()]}
    text = report_text(results, jobs)
    gain = "{difference:+.3f} [{low:+.3f}, {high:+.3f}]"
    assert "$" not in text
    assert gain.format(**results["frozen_gain_over_untrained"]) in text
    assert f"| pre-trained, frozen | {results['pretrained_frozen']:.3f} |" in text
    assert "\npython train.py hparams/pretrain_mini.yaml " in text
    pictures = re.findall(r"\((\w+\.png)\)", text)
    assert pictures == ["curves.png", "masks.png", "comparison.png"]
    short = report_text({**results, "pretraining_steps": 40}, jobs)
    assert len(short.splitlines()) > len(text.splitlines())
