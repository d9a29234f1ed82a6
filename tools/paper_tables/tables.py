"""The tables of RESULTS.md: the paper's numbers, others', ours."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable

from eat.report.markdown import markdown_table
from paper_tables.advice import ROW_NAMES
from paper_tables.outcome import Comparison, Outcome, compare
from paper_tables.plan import POOLINGS
from paper_tables.published import COSTS, PRINTED, RERUNS, SYSTEMS, PretrainingCost
from paper_tables.scale import CORPORA

DASH = "–"
COMPARED = ("table3", "figure3", "figure4")


def _score(scores: list[float]) -> str:
    """Mean and standard deviation."""
    if not scores:
        return DASH
    mean = f"{statistics.mean(scores):.2f}"
    return f"{mean} ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else mean


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _counts(outcome: Outcome, key: str) -> str:
    """Steps or clips of pre-training + fine-tuning."""
    if not outcome.n:
        return DASH
    parts = []
    for jobs in (outcome.pretrainings, outcome.finetunings):
        values = sorted({record[key] for record in outcome.of(jobs)})
        parts.append("/".join(f"{value:,}" for value in values) or DASH)
    return " + ".join(parts)


def _minutes(outcome: Outcome) -> str:
    """Minutes that a seed took: pre-training + fine-tuning."""
    return _spent(outcome, lambda record: record.get("seconds", 0) / 60, "{:.1f}")


def _gpu_hours(outcome: Outcome) -> str:
    """GPU hours that a seed took, or an estimate."""
    if outcome.n:
        return _spent(outcome, lambda r: r["cost"]["device_hours"], "{:.1f}")
    parts = (outcome.pretrainings, outcome.finetunings)
    return "≈ " + " + ".join(_hours(sum(j.gpu_hours or 0 for j in p)) for p in parts)


def _spent(outcome: Outcome, of: Callable[[dict], float], form: str) -> str:
    if not outcome.n:
        return DASH
    parts = []
    for jobs in (outcome.pretrainings, outcome.finetunings):
        spent = [of(record) for record in outcome.of(jobs)]
        # Some pre-trainings may be missing, as those made elsewhere.
        total = sum(spent) and statistics.mean(spent) * len(jobs) / outcome.n
        parts.append(form.format(total) if total else DASH)
    return " + ".join(parts)


def _reruns(task: str) -> list[str]:
    """Numbers that others got from EAT."""
    found = (r.score for r in RERUNS if (r.system, r.task) == ("EAT", task))
    return [str(score) for score in found if isinstance(score, float)]


def score_table(table: str, outcomes: list[Outcome], full: bool) -> str:
    """Every cell a row: the paper's number, ours, and what it took.

    Parameters
    ----------
    table
        Any but ``table2``.
    outcomes
        Its cells.
    full
        Whether these are the paper's sizes.
    """
    rows = []
    for outcome in outcomes:
        cell = outcome.cell
        names = [cell.row, cell.column]
        names = names[1:] if table == "table1" else names[: len(ROW_NAMES[table])]
        printed = PRINTED[table].get((cell.row, cell.column), DASH)
        row = dict(zip(ROW_NAMES[table], names, strict=True))
        row |= {"paper" if full else "paper, full size": str(printed)}
        if table == "table1" and full:
            row["others' re-runs"] = "; ".join(_reruns(cell.column)) or DASH
        row |= {
            "best epoch": _score(outcome.scores("best")),
            "last epoch": _score(outcome.scores("last")),
            "n": str(outcome.n),
            "steps": _counts(outcome, "steps"),
            "clips seen": _counts(outcome, "clips_seen"),
        }
        row |= (
            {"GPU hours": _gpu_hours(outcome)}
            if full
            else {"minutes": _minutes(outcome)}
        )
        rows.append(row)
    return markdown_table(rows, list(rows[0]))


def cost_table(outcome: Outcome, full: bool) -> str:
    """Table 2: what pre-training cost, the paper's rows first at full size."""
    rows = [_printed_cost(cost) for cost in COSTS] if full else []
    runs = outcome.of(outcome.pretrainings)
    here = {"model": "EAT, here", "AS-20K": _score(outcome.scores("best"))}
    if outcome.n and runs:
        costs = [run["cost"] for run in runs]
        here |= {
            "epochs": "/".join(
                str(e) for e in sorted({r["last"]["epoch"] for r in runs})
            ),
            "device hours": _hours(statistics.mean(c["device_hours"] for c in costs)),
            "devices": ", ".join(
                sorted({f"{c['devices']} {c['device']}" for c in costs})
            ),
            "clips/s": f"{statistics.mean(c['clips_per_second'] for c in costs):.0f}",
            "GFLOP a clip": f"{costs[0]['gflop_per_clip']:.4g}",
        }
    elif full:
        hours = sum(job.gpu_hours or 0 for job in outcome.pretrainings)
        here["device hours"] = f"≈ {_hours(hours)}"
    columns = ["model", "epochs", "device hours", "devices", "clips/s"]
    return markdown_table([*rows, here], [*columns, "GFLOP a clip", "AS-20K"])


def _printed_cost(cost: PretrainingCost) -> dict[str, str]:
    paper_rate = f"≈ {400_000 * 48 / (58 * 3600):.0f}"
    return {
        "model": f"{cost.model}, paper",
        "epochs": str(cost.epochs),
        "device hours": str(cost.gpu_hours),
        "devices": cost.hardware,
        "clips/s": paper_rate if cost.model == "EAT" else DASH,
        "GFLOP a clip": DASH
        if cost.gflop_per_clip is None
        else str(cost.gflop_per_clip),
        "AS-20K": str(cost.score),
    }


def systems_table() -> str:
    """Other systems' scores on the tasks of Table 1."""
    keys = dict(zip(CORPORA, ("as2m", "as20k", "esc50", "spc2"), strict=True))
    rows = [
        {"system": s.name}
        | {task: str(getattr(s, key) or DASH) for task, key in keys.items()}
        | {"source": s.source}
        for s in SYSTEMS
    ]
    return markdown_table(rows, list(rows[0]))


def reruns_table() -> str:
    """What others got."""
    rows = [
        {
            "system": r.system,
            "task": r.task,
            "how": r.how,
            "printed": str(r.printed),
            "re-run": str(r.score),
            "source": r.source,
        }
        for r in RERUNS
    ]
    return markdown_table(rows, list(rows[0]))


def comparisons(table: str, outcomes: list[Outcome]) -> list[str]:
    """Say whether the rows differ by more than seeds do, a line for each column."""
    if table not in COMPARED:
        return []
    columns: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for outcome in outcomes:
        scores = outcome.scores("last")
        columns[outcome.cell.column][outcome.cell.row] = scores
    lines = []
    for column, scores in columns.items():
        found = compare(scores)
        of_column = f"{column} pooling: " if len(columns) > 1 else ""
        if found is not None:
            lines.append(of_column + _in_words(found))
    if table == "figure4":
        lines += _poolings(outcomes)
    return lines


def _in_words(found: Comparison) -> str:
    below: dict[str, list[str]] = defaultdict(list)
    for high, low in found.pairs:
        below[low].append(high)
    pairs = [f"{low} below {', '.join(highs)}" for low, highs in below.items()]
    (low, low_mean), (high, high_mean) = found.low, found.high
    p_value = "< 0.001" if found.p_value < 0.001 else f"= {found.p_value:.3f}"
    return (
        f"{found.rows} rows with two seeds or more, last epoch. Highest {high} "
        f"({high_mean:.2f}), lowest {low} ({low_mean:.2f}): {high_mean - low_mean:.2f} "
        f"apart; standard deviation of a single run, pooled over rows: "
        f"{found.spread:.2f}. Analysis of variance: p {p_value}. "
        f"By Tukey's test at the 5% level, two rows are told apart from "
        f"some {found.resolution:.2f} on: {'; '.join(pairs) or 'none'}."
    )


def _poolings(outcomes: list[Outcome]) -> list[str]:
    by_cell = {(o.cell.row, o.cell.column): o.by_seed("last") for o in outcomes}
    cls, mean = (
        {
            (row, seed): score
            for (row, at), scores in by_cell.items()
            if at == pooling
            for seed, score in scores.items()
        }
        for pooling in POOLINGS
    )
    gains = [mean[pair] - cls[pair] for pair in cls if pair in mean]
    if len(gains) < 2:
        return []
    wins = sum(gain > 0 for gain in gains)
    return [
        "Mean over CLS pooling, on the same pre-training: "
        f"{statistics.mean(gains):+.2f} ± {statistics.stdev(gains):.2f}, "
        f"higher in {wins} of {len(gains)} pairs."
    ]
