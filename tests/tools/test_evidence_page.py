"""The study's page: numbers are those of the result files, the rest are commands."""

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from eat.evaluation.bootstrap import paired_bootstrap
from evidence import comparing
from evidence.clips import SUBSETS
from evidence.comparing import read_comparisons, write_comparisons
from evidence.figures import LOGGED
from evidence.measuring import PROBES
from evidence.page import README_COMMENTS, TEXT, fill, update_readme, write_page
from evidence.quoting import NOT_RUN, PAIR, PLACE, Numbers
from evidence.references import STATISTICS, UNTRAINED, untrained
from evidence.results import SCORES
from evidence.studies import EPOCH_STEPS, JobFactory, Row, read_studies
from evidence.tables import missing, names_of, study_table
from evidence.utterance_variance import MODELS

STUDIES = read_studies()
ROOT = Path(__file__).parents[2]
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
PUBLISHED = ROOT / "results" / "published" / "evidence"
VARIANCES = json.loads((PUBLISHED / "utterance_variance.json").read_text())["variances"]
METRICS = (*PROBES, "linear_last", "linear_last_cls", "knn", "knn_cls")
LAYERS = {
    f"{probe}_{x}": [0.2, 0.3] for probe in ("linear", "knn") for x in ("cls", "mean")
}
INTERVAL = {"value": 0.1234, "low": 0.1, "high": 0.15}
DECAY = ("mAP", "difference")
DONE = {"default": 5, "1x1": 3, "2x2": 1, "healthy": 1, "decay too low": 1}  # seeds


def rows_of(study):
    return [row.name for row in STUDIES[study].rows]


def score(row, seed, step, weights="student"):
    return round(0.1 * len(row) / 7 + 0.011 * seed**2 + step / 50_000, 5) + (
        0.001 if weights == "teacher" else 0
    )


@pytest.fixture
def results(tmp_path):
    """Results of some rows, baselines and one comparison."""
    for row, seeds in DONE.items():
        for seed in range(1, seeds + 1):
            curve = [
                {"step": step, "weights": weights}
                | dict.fromkeys(METRICS, score(row, seed, step, weights))
                for step in (1000, 2000)
                for weights in ("student", "teacher")
            ]
            layers = {"student": LAYERS, "teacher": LAYERS}
            result = {"seed": seed, "minutes": 12.5, "curve": curve, "layers": layers}
            result["log"] = {"step": [50, 100]} | dict.fromkeys(LOGGED, [1.0, None])
            path = tmp_path / f"{Row(row, {}).run_name(seed)}.json"
            path.write_text(json.dumps(result))
    scores = {name: {"linear": 0.309, "knn": 0.2} for name in STATISTICS}
    scores[UNTRAINED] = [
        {"layers": LAYERS} | dict.fromkeys(METRICS, 0.25 + 0.01 * n) for n in range(3)
    ]
    (tmp_path / "baselines.json").write_text(json.dumps({"scores": scores}))
    labels = dict.fromkeys(("scratch", "pretrained", "difference"), INTERVAL)
    decays = {"none": {"mAP": INTERVAL}, "low": dict.fromkeys(DECAY, INTERVAL)}
    runs = {"a": {"minutes": 2.0}, "b": {"minutes": 3.0}}
    text = json.dumps(
        {"comparisons": {"20": labels}, "layer_decay": decays, "runs": runs}
        | {"search": {"c": {"minutes": 4.0}}}
    )
    (tmp_path / "labels.json").write_text(text)
    pair = {"difference": -0.0214, "low": -0.034, "high": 0.009, "above": 1}
    other = {"difference": 0.03, "low": 0.01, "high": 0.05, "above": 3}
    comparisons = {
        "1x1 - default": {
            "seeds": [1, 2, 3],
            **dict.fromkeys(PROBES, other),
            "linear": pair,
        }
    }
    text = json.dumps({"comparisons": comparisons})
    (tmp_path / "comparisons.json").write_text(text)
    return tmp_path


def expected(row, step=2000, weights="student"):
    scores = [score(row, seed, step, weights) for seed in range(1, DONE[row] + 1)]
    return f"{statistics.mean(scores):.3f} ± {statistics.stdev(scores):.3f}"


def test_numbers_are_those_of_the_files(results):
    numbers = Numbers.read(results)
    assert numbers["default: linear"] == expected("default")
    assert numbers["1x1: knn @ 1000"] == expected("1x1", 1000)
    teacher = expected("default", weights="teacher")
    assert numbers["default: linear_cls, teacher"] == teacher
    assert numbers[f"{UNTRAINED}: linear"] == "0.260 ± 0.010"
    assert numbers["1x1 - default"] == "-0.021 [-0.034, +0.009]"
    assert numbers["1x1 - default: linear_cls"] == "+0.030 [+0.010, +0.050]"
    assert numbers["8x8: linear"] == numbers["8x8 - default"] == NOT_RUN
    with pytest.raises(KeyError):
        numbers["figure"]


def test_rows_that_have_not_been_run_are_a_command(results):
    numbers, study = Numbers.read(results), STUDIES["blocks"]
    table = study_table(study, numbers)
    lines = {line.split("|")[1].strip(): line for line in table.splitlines()[2:]}
    assert list(lines) == ["1x1", "2x2", "5x5"]
    assert expected("1x1") in lines["1x1"] and "-0.021 [-0.034, +0.009]" in lines["1x1"]
    assert "1 of 3" in lines["1x1"] and "1x1-seed3.json" in lines["1x1"]
    text = missing(study, numbers)
    assert "2x2 (seed 2, 3)" in text and "8x8 (seed 1, 2, 3)" in text
    assert "1x1" not in text and "5x5" not in text and "--study blocks" in text
    runs = 3 * len(study.rows) - 3 - 1 - 3
    assert f" {runs * study.rows[0].minutes / 2:.0f} minutes" in text
    assert missing(STUDIES["curve"], numbers) == ""


@pytest.mark.slow  # draws
def test_page(results, tmp_path):
    path = tmp_path / "evidence.md"
    write_page(results, path)
    text = path.read_text()
    assert expected("default") in text and expected("1x1", 2000) in text
    assert expected("default", 1000, "teacher") in text
    for study in STUDIES.values():
        assert f"## {study.title}\n" in text
    assert "$" not in text and "--study weight" in text
    between = "0.123 [0.100, 0.150]"
    difference = "+0.123 [+0.100, +0.150]"
    assert f"| 20% | {between} | {between} | {difference} |" in text
    assert f"| none | {between} | reference |" in text
    assert f"| low | {between} | {difference} |" in text
    (cost,) = (line for line in text.splitlines() if "--study labels`" in line)
    assert cost.split("|")[4].strip() == "9"  # minutes
    pictures = {picture.name: picture for picture in results.glob("*.png")}
    compared = {name for name in STUDIES if len({*DONE} & {*rows_of(name)}) > 1}
    drawn = {"curve", "layers", "failures_decay_too_low", *compared - {"failures"}}
    assert pictures.keys() == {f"{name}.png" for name in drawn}
    for name, picture in pictures.items():
        shown = text if not name.startswith("failures") else TROUBLESHOOTING.read_text()
        assert f"](../results/published/evidence/{name})" in shown
        assert picture.stat().st_size < 100_000


def test_page_before_the_first_run(tmp_path):
    write_page(tmp_path, tmp_path / "evidence.md")
    text = (tmp_path / "evidence.md").read_text()
    assert all(f"--study {name}\n" in text for name in STUDIES) and "$" not in text


class Names:
    """Accepts the names of numbers that the study will have."""

    rows = {row.name: row for study in STUDIES.values() for row in study.rows}
    references = {*STATISTICS, UNTRAINED}

    def __getitem__(self, name):
        if pair := PAIR.fullmatch(name):
            assert tuple(pair["rows"].split(" - ")) in comparing.pairs(STUDIES), name
            assert pair["probe"] in {None, *PROBES}, name
            return ""
        place = PLACE.fullmatch(name)
        assert place, name
        if place["row"] in MODELS:
            assert place["metric"] in VARIANCES[place["row"]], name
            return ""
        assert place["metric"] in METRICS, name
        if place["row"] not in self.references:
            row, last = self.rows[place["row"]], self.rows[place["row"]].steps
            epoch, rest = divmod(int(place["step"] or last), EPOCH_STEPS)
            assert (place["weights"] or "student") in row.measured(epoch), name
            assert rest == 0 and epoch * EPOCH_STEPS <= last, name
        return ""


def test_texts_name_numbers_that_the_study_has():
    names = "main figure layers table missing studies baselines cost labels"
    fields = dict.fromkeys([*names.split(), "layer_decay"], "")
    texts = sorted(TEXT.glob("*.md"))
    assert {path.stem for path in texts} == {*STUDIES, "evidence", "main"}
    for path in texts:
        fill(path, Names(), fields)
    for study in STUDIES.values():
        assert {*names_of(study), *study.labels} <= Names.rows.keys()


# What the headings of main.md state: row and reference, probe, sign of the difference.
CLAIMS = [
    *((f"default - {name}", "linear", +1) for name in (*STATISTICS, UNTRAINED)),
    ("1x1 - default", "linear_mean", +1),
    ("default - lambda 0", "linear_mean", -1),
]


@pytest.mark.parametrize(("pair", "probe", "sign"), CLAIMS)
def test_intervals_of_the_main_results_exclude_zero(pair, probe, sign):
    found = read_comparisons(PUBLISHED)[pair]
    assert len(found["seeds"]) >= 3
    assert min(sign * found[probe]["low"], sign * found[probe]["high"]) > 0


def test_nearest_neighbors_do_not_show_it():
    numbers = Numbers.read(PUBLISHED)
    (statistics_score,) = numbers.points("log-mel statistics", "knn")
    assert max(numbers.points("default", "knn")) < statistics_score


@pytest.fixture
def scores():
    """Targets `[M, C]` and scores of three seeds `[S, M, C]`, the second ones worse."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(60, 3, generator=generator) < 0.3).float()
    noise = torch.randn(2, 3, 60, 3, generator=generator)
    return targets, targets + noise[0], targets + 2 * noise[1]


def test_comparisons_of_runs(tmp_path, scores, monkeypatch):
    targets, *both = scores
    clips = type("Clips", (), {"labels": {SUBSETS[1]: targets}})
    monkeypatch.setattr(comparing, "LabeledClips", lambda *_: clips)
    factory = JobFactory(tmp_path)
    rows = {row.name: row for row in STUDIES["blocks"].rows}
    for name, of_seed in zip(("1x1", "default"), both, strict=True):
        for seed in (1, 3) if name == "1x1" else (1, 2, 3):
            folder = factory.pretraining(rows[name], seed).folder
            folder.mkdir(parents=True)
            of_probe = {name: of_seed[seed - 1].numpy() for name in PROBES}
            np.savez(folder / SCORES, **of_probe)
    kept = {
        "8x8 - default": {"seeds": [1], "scores": {"a": "b"}}
    }  # made on another machine
    (tmp_path / "comparisons.json").write_text(json.dumps({"comparisons": kept}))
    write_comparisons(factory, tmp_path)
    found = read_comparisons(tmp_path)
    assert found.keys() == {"1x1 - default", "8x8 - default"}
    first = found["1x1 - default"]
    assert first["seeds"] == [1, 3] and len(first["scores"]) == 4
    assert first["linear"]["above"] == 2
    values = paired_bootstrap(*(of[[0, 2]] for of in both), targets)
    names = ("difference", "low", "high")
    assert [first["linear_cls"][name] for name in names] == pytest.approx(
        values, rel=1e-4
    )


def test_untrained_networks_differ_by_seed():
    (one, frontend), (same, _), (other, _) = (untrained(seed) for seed in (1, 1, 2))
    weights = [net.state_dict()["cls_token"] for net in (one, same, other)]
    assert frontend.num_frames == 1024
    assert torch.equal(*weights[:2]) and not torch.equal(*weights[1:])


def test_readme_has_the_main_results_between_its_comments(results, tmp_path):
    readme = tmp_path / "README.md"
    before, after = README_COMMENTS
    readme.write_text(f"# Title\n\n{before}\nold\n{after}\n\nThe end\n")
    for _ in range(2):  # again with the same result
        update_readme(results, readme)
        text = readme.read_text()
        assert text.startswith(f"# Title\n\n{before}\n\n- ")
        assert text.endswith(f"\n\n{after}\n\nThe end\n")
        joined = " ".join(text.split())  # lines are wrapped
        assert expected("default") in joined and "old" not in joined
