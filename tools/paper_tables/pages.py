"""RESULTS.md and one page per table, from templates in ``text`` and finished runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from eat.report.markdown import markdown_table
from eat.utils.files import write_text
from evidence.quoting import Fields, Numbers, NumberTemplate
from paper_tables.experiments import SCALES, JobFactory
from paper_tables.jobs import Job
from paper_tables.records import CORPUS_FOLDERS, OUTPUT, RecordError
from paper_tables.reference import reported, reproductions
from paper_tables.tables import TABLES, PaperTable, Results
from quickstart.scores import draw_scores, pool, table_rows

TEXT = Path(__file__).with_name("text")
# Options that depend on the processor and on the number of GPUs.
MACHINE = ("--precision", "--eval_precision", "--grad_accumulation_factor")


def factory_of(records: Mapping[str, dict]) -> JobFactory:
    """Return the factory at full scale, with the seeds of the finished runs."""
    seeds = (re.search(r"-seed(\d+)$", name) for name in records)
    data = {recipe: Path(folder) for recipe, folder in CORPUS_FOLDERS.items()}
    return JobFactory(
        SCALES["full"],
        Path("recipes"),
        data,
        Path(OUTPUT),
        tuple(sorted({int(seed[1]) for seed in seeds if seed}) or [1]),
    )


def write_pages(records: Mapping[str, dict], published: Path, overview: Path) -> None:
    """Write the page of each table to `published`, and RESULTS.md, the overview.

    Records are by run, see :func:`paper_tables.records.gather`.
    """
    results = factory_of(records), records
    for table in TABLES.values():
        fields = table.fields(results, published)
        fields["notes"] = "\n".join(f"- {note}" for note in notes(table, results))
        write_text(published / f"{table.name}.md", fill(f"{table.name}.md", fields))
    if not (files := sorted(published.glob("quickstart_seed*.json"))):
        raise RecordError(f"{published}: no quickstart_seed*.json (copy them there)")
    pooled = pool(files)
    draw_scores(pooled, published / "quickstart.png")
    scores = markdown_table(table_rows(pooled), ["", "mAP", "std", "n"])
    fields = {"quickstart": scores, "paper": paper_table(results)}
    write_text(
        overview, fill("RESULTS.md", fields, Numbers.read(published / "evidence"))
    )


def fill(name: str, fields: Mapping[str, str], numbers: Numbers | None = None) -> str:
    """Fill a template with fields and, where it names them, numbers of the study."""
    template = NumberTemplate((TEXT / name).read_text(encoding="utf-8"))
    return template.substitute(Fields(fields, numbers) if numbers else fields)


def paper_table(results: Results) -> str:
    """Return the main numbers of the paper, of reproductions, and of ours."""
    rows = []
    for table in TABLES.values():
        name = f"{table.kind.title()} {table.number}"
        link = f"[{name}](results/published/{table.name}.md)"
        rows += [
            {
                "result": f"{link}, {label}",
                "paper": reported(table.name)[place],
                "independent reproductions": reproductions(*place),
                "status here": table.status(results, place),
                "command": f"`--{table.kind} {table.number}`",
            }
            for place, label in table.highlights.items()
        ]
    return markdown_table(rows, list(rows[0]))


def notes(table: PaperTable, results: Results) -> list[str]:
    """Return what was run: how many runs, clips and versions, and changed settings."""
    factory, records = results
    jobs = table.jobs(factory)
    found = {job: records[job.name] for job in jobs if job.name in records}
    seeds = ", ".join(map(str, factory.seeds))
    count = f"{len(found)} of {len(jobs)} runs, seeds {seeds}"
    if hours := sum(job.gpu_hours for job in jobs if job not in found):
        count += f", an estimated {hours:,.0f} GPU hours to go"
    return [count, *_clips(found), *_versions(found), *_changed_settings(found)]


def _clips(records: Mapping[Job, dict]) -> list[str]:
    """Compare the clips used with the paper's, for each corpus."""
    lines: dict[str, None] = {}  # each once, in order
    for job, record in records.items():
        parts = []
        for name, clips in (record["data"] or {}).items():
            paper = clips["used_in_paper"]
            of_paper = f" (paper: {paper:,})" if paper else ""
            parts.append(f"{name} {clips['used']:,}{of_paper}")
        if parts:
            lines[f"clips of {job.recipe.name}: {', '.join(parts)}"] = None
    return list(lines)


def _versions(records: Mapping[Job, dict]) -> list[str]:
    """Count the runs made with each set of versions."""
    counts: Counter[str] = Counter()
    for record in records.values():
        versions = {"device": record["cost"]["device"], **record["versions"]}
        counts[", ".join(f"{k} {v}" for k, v in versions.items() if v)] += 1
    return [f"made with {made}: {count} runs" for made, count in counts.items()]


def _changed_settings(records: Mapping[Job, dict]) -> list[str]:
    """Name the runs whose settings are not the planned ones."""
    lines = []
    for job, record in records.items():
        if "command" not in record:
            lines.append(f"{job.name}: run by hand, settings not checked")
            continue
        made, planned = _options(record["command"]), _options(job.command)
        if made != planned:
            options = " ".join(sorted(made ^ planned))
            lines.append(f"{job.name}: settings differ from the plan in `{options}`")
    return lines


def _options(command: list[str]) -> set[str]:
    """Return train.py's options with their values, without those of a machine."""
    text = " ".join(command[command.index("train.py") :])
    return {o for o in re.split(r" (?=--)", text) if not o.startswith(MACHINE)}
