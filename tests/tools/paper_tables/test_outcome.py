"""What came of a cell; comparisons against scipy and a computation by hand."""

import pytest
from scipy.stats import f_oneway

from paper_tables.outcome import Outcome, compare


def test_only_seeds_with_all_folds_count(study, record):
    cell = study(seeds=(1, 2)).cells("table1")[2]
    records = {job.name: record(0.9) for job in cell.runs[0]}
    records |= {job.name: record(0.7) for job in cell.runs[1]}
    both = Outcome(cell, records)
    assert both.n == 2 and both.scores("best") == pytest.approx([90, 70])
    del records[cell.runs[0][3].name]
    one = Outcome(cell, records)
    assert one.n == 1 and one.by_seed("last") == pytest.approx({1: 70})
    assert one.finetunings == list(cell.runs[1])
    assert [job.name for job in one.pretrainings] == ["pretrain-seed2"]
    assert one.of(one.pretrainings) == []
    none = Outcome(cell, {})
    assert none.n == 0 and none.scores("best") == []
    assert [job.name for job in none.pretrainings] == ["pretrain-seed1"]


def test_comparison_by_hand():
    scores = {"a": [10.0, 12.0], "b": [20.0, 20.0, 23.0], "single": [99.0]}
    found = compare(scores)
    assert found.rows == 2 and found.low == ("a", 11) and found.high == ("b", 21)
    # Squares: 1 + 1 and 1 + 1 + 4, over one and two degrees of freedom.
    assert found.spread == pytest.approx((8 / 3) ** 0.5)
    assert found.p_value == pytest.approx(f_oneway(scores["a"], scores["b"]).pvalue)
    # With two groups Tukey's test is the t test: 3.182 is t's 97.5% quantile, 3 free.
    error = found.spread * (1 / 2 + 1 / 3) ** 0.5
    assert found.resolution == pytest.approx(3.182 * error, rel=1e-3)
    assert found.pairs == [("b", "a")]


def test_what_seeds_explain_is_no_difference():
    found = compare({"a": [10.0, 12.0], "b": [11.0, 12.5], "c": [12.0, 10.5]})
    assert found.pairs == [] and found.p_value > 0.5
    assert compare({"a": [1.0, 2.0], "b": [1.0]}) is None
