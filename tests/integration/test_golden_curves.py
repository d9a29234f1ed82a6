"""The first 200 steps of each mini pre-training go as they always did."""

from pathlib import Path

import pandas as pd
import pytest

from mini_corpora.corpora import make_mini_corpora
from paper_tables.golden import (
    INTERVAL,
    RECIPES,
    STEPS,
    TOLERANCES,
    deviations,
    differences,
    golden_job,
    read_curve,
    read_golden,
)
from paper_tables.jobs import Runner

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "results" / "published" / "golden"


@pytest.fixture(scope="module")
def corpora():
    """The mini corpora where the quick start has them, made if need be."""
    folder = ROOT / "results" / "mini_corpora"
    make_mini_corpora(ROOT / "tools" / "bank", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_training_goes_as_it_did(recipe, corpora, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    job = Runner().run(golden_job(recipe, ROOT / "recipes", corpora, tmp_path))
    found = differences(read_curve(job.folder), read_golden(GOLDEN / f"{recipe}.csv"))
    assert not found, "\n".join([*found, "meant so? tools/golden_curves.py --write"])


def test_every_mini_pretraining_has_its_curve():
    recipes = {path.parents[1].name for path in ROOT.glob("recipes/*/*/pretrain_mini*")}
    assert recipes == RECIPES.keys() == {path.stem for path in GOLDEN.glob("*.csv")}


@pytest.mark.parametrize("recipe", RECIPES)
def test_curves_are_whole_and_healthy(recipe):
    golden = read_golden(GOLDEN / f"{recipe}.csv")
    assert list(golden.index) == list(range(INTERVAL, STEPS + 1, INTERVAL))
    assert golden.notna().all(axis=None) and (golden > 0).all(axis=None)
    assert golden["loss"].iloc[-1] < 0.7 * golden["loss"].iloc[0]
    assert golden["target_std"].min() > 0.5


@pytest.fixture
def golden():
    return pd.DataFrame({name: [1.0, 2.0] for name in TOLERANCES}, index=[10, 20])


@pytest.mark.parametrize("name", TOLERANCES)
def test_a_figure_out_of_tolerance_is_named(golden, name):
    within, out, lost = golden.copy(), golden.copy(), golden.copy()
    within.loc[20, name] *= 1 + 0.9 * TOLERANCES[name]
    out.loc[20, name] *= 1 - 1.1 * TOLERANCES[name]
    lost.loc[10, name] = float("nan")
    assert differences(golden, golden) == differences(within, golden) == []
    assert deviations(out, golden)[name] == pytest.approx(1.1 * TOLERANCES[name])
    assert [line.split(":")[0] for line in differences(out, golden)] == [name]


def test_other_steps_are_not_compared(golden):
    with pytest.raises(ValueError, match="steps"):
        deviations(golden.iloc[:1], golden)
