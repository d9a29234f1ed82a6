"""Where numbers come from: clips at hand, deviations from the plan, commands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from paper_tables.jobs import Job
from paper_tables.schedule import in_order


def coverage(jobs: Iterable[Job], records: Mapping[str, dict]) -> list[str]:
    """Clips at hand and those of the paper, a line for each corpus as runs saw it."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for job in jobs:
        if data := records.get(job.name, {}).get("data"):
            parts = [
                f"{name} {counts['used']:,}"
                + (f" of {of:,}" if (of := counts["used_in_paper"]) else "")
                for name, counts in data.items()
            ]
            found[job.recipe.name].setdefault(", ".join(parts))
    return [
        f"Clips at hand, of the paper's ({recipe}): {line}."
        for recipe, lines in found.items()
        for line in lines
    ]


def deviations(jobs: Iterable[Job], records: Mapping[str, dict]) -> list[str]:
    """Name runs whose command is not the planned one, grouped by the difference."""
    found: dict[str, list[str]] = defaultdict(list)
    for job in jobs:
        if (record := records.get(job.name)) is None:
            continue
        if (words := record.get("command")) is None:
            found["started by hand, settings unchecked"].append(job.name)
            continue
        made, planned = _options(words), _options(job.command)
        added = [option for option in made if option not in planned]
        left_out = [option for option in planned if option not in made]
        parts = [f"with `{' '.join(added)}`"] * bool(added)
        parts += [f"without `{' '.join(left_out)}`"] * bool(left_out)
        if parts:
            found[" and ".join(parts)].append(job.name)
    return [
        f"Not as planned, {what}: {len(names)} run{'s' * (len(names) > 1)} ({names[0]}"
        + (", ...)." if len(names) > 1 else ").")
        for what, names in found.items()
    ]


def _options(command: list[str]) -> list[str]:
    """Options with their values; processes count as batches that one accumulates."""
    launcher, words = [], list(command)
    if "train.py" in words:
        start = words.index("train.py")
        launcher, words = words[:start], words[start:]
    prefix = "--nproc_per_node="
    counts = [w.removeprefix(prefix) for w in launcher if w.startswith(prefix)]
    options: list[str] = []
    for word in words:
        if options and options[-1].startswith("--") and not word.startswith("--"):
            options[-1] += f" {word}"
        else:
            options.append(word)
    factor = "--grad_accumulation_factor "
    return [
        f"{factor}{int(option.removeprefix(factor)) * int(counts[0])}"
        if counts and option.startswith(factor)
        else option
        for option in options
    ]


def commands(jobs: Iterable[Job], records: Mapping[str, dict]) -> str:
    """The command of each run, as made or as planned, for a shell."""
    lines = []
    for job in in_order(jobs):
        record = records.get(job.name)
        hours = f", some {job.gpu_hours:g} GPU hours" if job.gpu_hours else ""
        lines.append(f"# {job.name}: " + ("done" if record else f"not run{hours}"))
        words = (record or {}).get("command") or job.command
        lines.append(f"(cd {job.recipe} && python {' '.join(words)})")
    return "\n".join(lines)


def versions(jobs: Iterable[Job], records: Mapping[str, dict]) -> list[str]:
    """What the runs were made with, a line for each set of versions."""
    found: dict[str, int] = defaultdict(int)
    for job in jobs:
        if record := records.get(job.name):
            device = record["cost"]["device"] if "cost" in record else None
            git = record["versions"].get("git") or "revision unknown"
            made = {**record["versions"], "git": git, "on": device}
            found[", ".join(f"{k} {v}" for k, v in made.items() if v)] += 1
    return [f"- made with {made}: {count}" for made, count in found.items()]
