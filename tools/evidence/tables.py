"""Tables of the study, and the commands of what has not been run."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from eat.report.markdown import markdown_table
from evidence.labels import expected_minutes
from evidence.quoting import Numbers, mean_std
from evidence.references import FILE as BASELINES
from evidence.studies import Row, Study, runs_of

COMMAND = "python tools/paper_tables/evidence.py --study"
MAX_JOBS = 2  # runs at a time
LABELS_TITLE = "Fine-tuning with few labels"  # once `curve` has been run
FILES = "../results/published/evidence"  # seen from the page
METRICS = {  # by column
    "linear, both": "linear",
    "linear, patches": "linear_mean",
    "linear, CLS": "linear_cls",
    "kNN": "knn",
}


def names_of(study: Study) -> list[str]:
    """Return the names of the rows that are shown, first a reference from elsewhere."""
    return list(dict.fromkeys([*_elsewhere(study), *(row.name for row in study.rows)]))


def _elsewhere(study: Study) -> list[str]:
    own = any(row.name == study.reference for row in study.rows)
    return [] if own else [study.reference]


def study_table(study: Study, numbers: Numbers) -> str:
    """Return the scores of the rows that have been run, each against the reference."""
    rows = []
    versus = f"minus {study.label(study.reference)}"
    for name in names_of(study):
        if name not in numbers.rows:
            continue
        row = {"": study.label(name)} | _scores(name, numbers)
        if found := numbers.comparisons.get(f"{name} - {study.reference}"):
            row[versus] = numbers[f"{name} - {study.reference}"]
            above = found["linear"]["above"]
            row["seeds above"] = f"{above} of {len(found['seeds'])}"
        elif name == study.reference:
            row |= {versus: "reference", "seeds above": ""}
        row["runs"] = _links(name, numbers)
        rows.append(row)
    if not rows:
        return ""
    first, *others = METRICS
    compared = [versus, "seeds above"] if len(names_of(study)) > 1 else []
    return markdown_table(rows, ["", first, *compared, *others, "runs"])


def _scores(name: str, numbers: Numbers) -> dict[str, str]:
    return {
        column: mean_std(numbers.points(name, metric))
        for column, metric in METRICS.items()
    }


def _links(name: str, numbers: Numbers) -> str:
    """Return a link to the result of each seed."""
    row, seeds = Row(name, {}), numbers.rows[name]
    return " ".join(f"[{seed}]({FILES}/{row.run_name(seed)}.json)" for seed in seeds)


def baseline_table(numbers: Numbers) -> str:
    """Return the scores of the baselines, and the default's differences to them."""
    rows, versus = [], "default minus it"
    for name, scores in numbers.baselines.items():
        row = {"": name, "n": len(scores), "results": f"[JSON]({FILES}/{BASELINES})"}
        for column, metric in METRICS.items():
            if all(metric in score for score in scores):
                row[column] = mean_std([score[metric] for score in scores])
        if f"default - {name}" in numbers.comparisons:
            row[versus] = numbers[f"default - {name}"]
        rows.append(row)
    columns = ["", *METRICS, "n", versus, "results"]
    # Statistics have neither CLS token nor patches.
    empty = dict.fromkeys((*METRICS, versus), "")
    return markdown_table([empty | row for row in rows], columns)


def missing(study: Study, numbers: Numbers) -> str:
    """Return what has not been run as a command with its minutes, "" if nothing."""
    parts, minutes = [], 0.0
    for row in study.rows:
        done = numbers.rows.get(row.name, {})
        seeds = [seed for seed in range(1, study.seeds + 1) if seed not in done]
        minutes += len(seeds) * row.minutes
        if seeds:
            parts.append(f"{study.label(row.name)} (seed {', '.join(map(str, seeds))})")
    if not parts:
        return ""
    return (
        f"Not run yet: {', '.join(parts)}. The command runs them, in about "
        f"{minutes / MAX_JOBS:.0f} minutes on two cores:\n\n"
        f"```\n{COMMAND} {study.name}\n```"
    )


def cost_table(studies: Mapping[str, Study], numbers: Numbers) -> str:
    """Return command and minutes of each part and of all; parts share runs."""
    rows = [
        _cost(study.title, f"{COMMAND} {study.name}", runs_of([study], None), numbers)
        for study in studies.values()
    ]
    minutes, done = expected_minutes(), numbers.label_minutes
    labels = {
        "part": LABELS_TITLE,
        "command": f"`{COMMAND} labels`",
        "runs": "all" if done else "none",
        "minutes of one core": f"{done:.0f}",
        "expected": f"{minutes:.0f}",
    }
    command = COMMAND.removesuffix(" --study")
    runs = runs_of(studies.values(), None)
    total = _cost("All pre-trainings", command, runs, numbers)
    return markdown_table([*rows, labels, total], list(labels))


def _cost(
    title: str, command: str, runs: Collection[tuple[Row, int]], numbers: Numbers
) -> dict[str, str]:
    expected = [row.minutes for row, _ in runs]
    done = [
        numbers.rows[row.name][seed]["minutes"]
        for row, seed in runs
        if seed in numbers.rows.get(row.name, {})
    ]
    return {
        "part": title,
        "command": f"`{command}`",
        "runs": f"{len(done)} of {len(expected)}",
        "minutes of one core": f"{sum(done):.0f}",
        "expected": f"{sum(expected):.0f}",
    }


def label_table(numbers: Numbers) -> str:
    """Return the scores of fine-tuning by share of the labels, "" before it was run."""
    rows = [
        {
            "labels": f"{share}%",
            "from scratch": _interval(found["scratch"]),
            "pre-trained": _interval(found["pretrained"]),
            "difference": _interval(found["difference"], "+"),
        }
        for share, found in numbers.labels.items()
    ]
    return markdown_table(rows, list(rows[0])) if rows else ""


def missing_labels() -> str:
    """Return the command of the fine-tunings with its minutes."""
    return (
        "Not run yet. The command runs it, in about "
        f"{expected_minutes() / MAX_JOBS:.0f} minutes on two cores, and before it the "
        f"learning curve's runs:\n\n```\n{COMMAND} labels\n```"
    )


def layer_decay_table(numbers: Numbers) -> str:
    """Return the scores of fine-tuning with layer-wise decay, "" before it was run."""
    rows = [
        {
            "": name,
            "mAP": _interval(found["mAP"]),
            "difference": _interval(found["difference"], "+")
            if "difference" in found
            else "reference",
        }
        for name, found in numbers.layer_decay.items()
    ]
    return markdown_table(rows, list(rows[0])) if rows else ""


def _interval(found: Mapping[str, float], sign: str = "") -> str:
    texts = [f"{found[name]:{sign}.3f}" for name in ("value", "low", "high")]
    return "{} [{}, {}]".format(*texts)
