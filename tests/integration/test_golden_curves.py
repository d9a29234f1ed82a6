"""The first 200 steps of each mini pre-training match the stored curves."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from mini_corpora.corpora import make_mini_corpora
from paper_tables.runner import Runner

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location(
    "golden_curves", ROOT / "tools" / "golden_curves.py"
)
golden_curves = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden_curves)
RECIPES, TOLERANCES = golden_curves.RECIPES, golden_curves.TOLERANCES


@pytest.fixture(scope="module")
def corpora():
    """The mini corpora of the quick start, made if they are missing."""
    folder = ROOT / "results" / "mini_corpora"
    make_mini_corpora(ROOT / "tools" / "bank", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_training_matches_its_golden_curve(recipe, corpora, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    job = Runner().run(golden_curves.golden_job(recipe, corpora, tmp_path))
    curve = golden_curves.read_curve(job.folder)
    found = golden_curves.differences(curve, golden_curves.read_golden(recipe))
    assert not found, "\n".join([*found, "intended? tools/golden_curves.py --write"])


def test_every_mini_pretraining_has_a_curve():
    recipes = {path.parents[1].name for path in ROOT.glob("recipes/*/*/pretrain_mini*")}
    stored = {path.stem for path in golden_curves.GOLDEN.glob("*.csv")}
    # Own data has no corpus to draw a curve on.
    assert recipes - {"OwnData"} == RECIPES.keys() == stored


@pytest.mark.parametrize("recipe", RECIPES)
def test_curves_are_complete_and_healthy(recipe):
    golden = golden_curves.read_golden(recipe)
    steps = range(
        golden_curves.INTERVAL, golden_curves.STEPS + 1, golden_curves.INTERVAL
    )
    assert list(golden.index) == list(steps)
    assert golden.notna().all(axis=None) and (golden > 0).all(axis=None)
    assert golden["loss"].iloc[-1] < 0.7 * golden["loss"].iloc[0]
    assert golden["target_std"].min() > 0.5


@pytest.fixture
def golden():
    return pd.DataFrame({name: [1.0, 2.0] for name in TOLERANCES}, index=[10, 20])


@pytest.mark.parametrize("name", TOLERANCES)
def test_a_metric_out_of_tolerance_is_named(golden, name):
    within, out, lost = golden.copy(), golden.copy(), golden.copy()
    within.loc[20, name] *= 1 + 0.9 * TOLERANCES[name]
    out.loc[20, name] *= 1 - 1.1 * TOLERANCES[name]
    lost.loc[10, name] = float("nan")
    differences = golden_curves.differences
    assert differences(golden, golden) == differences(within, golden) == []
    found = golden_curves.deviations(out, golden)[name]
    assert found == pytest.approx(1.1 * TOLERANCES[name])
    assert [line.split(":")[0] for line in differences(out, golden)] == [name]


def test_different_steps_are_an_error(golden):
    with pytest.raises(ValueError):
        golden_curves.deviations(golden.iloc[:1], golden)
