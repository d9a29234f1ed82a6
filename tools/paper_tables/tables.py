"""The tables and figures of the paper, one class each: which runs, how shown."""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from eat.report.markdown import markdown_table
from eat.report.style import BLUE, VERMILION
from paper_tables.experiments import RECIPES, Cell, JobFactory, Scale
from paper_tables.figures import Curve, plot_curves
from paper_tables.jobs import Job, in_order
from paper_tables.records import CellStatistics, mean_std
from paper_tables.reference import DASH, read_data, reported, reported_curve

FOLDS = (1, 2, 3, 4, 5)
Place = tuple[str, str]  # row and column of a cell
# The job factory and the records of its finished runs, by name.
Results = tuple[JobFactory, Mapping[str, dict]]


class PaperTable(ABC):
    """A table or figure of the paper."""

    kind: ClassVar[str] = "table"  # or figure
    number: ClassVar[int]  # in the paper
    rows: ClassVar[tuple[str, ...]] = ("EAT",)
    columns: ClassVar[tuple[str, ...]] = ("AS-20K",)
    headers: ClassVar[tuple[str, str]]  # names of rows and columns, "" if not shown
    highlights: ClassVar[dict[Place, str]]  # cells in RESULTS.md and their names there

    @property
    def name(self) -> str:
        """Short name, such as ``table1``."""
        return f"{self.kind}{self.number}"

    @abstractmethod
    def run(self, factory: JobFactory, place: Place, seed: int) -> tuple[Job, ...]:
        """Return the jobs of a cell for one seed."""

    def places(self, scale: Scale) -> list[Place]:
        """Return row and column of each cell at a scale."""
        return [(row, column) for row in self.rows for column in self.columns]

    def cells(self, factory: JobFactory) -> list[Cell]:
        """Return the cells at the factory's scale."""
        return [
            Cell(*place, tuple(self.run(factory, place, s) for s in factory.seeds))
            for place in self.places(factory.scale)
        ]

    def jobs(self, factory: JobFactory) -> list[Job]:
        """Return all runs of the table, each once, after those that it needs."""
        return in_order(job for cell in self.cells(factory) for job in cell.jobs)

    def measured(self, results: Results) -> dict[Place, CellStatistics]:
        """Return the statistics of each cell with finished runs."""
        factory, records = results
        found = {
            (cell.row, cell.column): CellStatistics.of(cell, records)
            for cell in self.cells(factory)
        }
        return {place: scores for place, scores in found.items() if scores.n}

    def fields(self, results: Results, folder: Path) -> dict[str, str]:
        """Return the fields of the page's template; pictures are put in `folder`."""
        return {"scores": self.scores(results)}

    def scores(self, results: Results) -> str:
        """Return the numbers of the paper and ours as a Markdown table."""
        paper, measured = reported(self.name), self.measured(results)
        rows = []
        for place in self.places(results[0].scale):
            labels = zip(self.headers, place, strict=True)
            row = {header: label for header, label in labels if header}
            row["paper"] = paper.get(place, DASH)
            if place in measured:
                row["best epoch"] = mean_std(measured[place].best)
                row["last epoch"] = mean_std(measured[place].last)
                row["n"] = str(measured[place].n)
            rows.append(row)
        columns = dict.fromkeys(column for row in rows for column in row)
        return markdown_table(rows, list(columns))

    def status(self, results: Results, place: Place) -> str:
        """Return a cell's score, or what it takes to get it."""
        factory, records = results
        cells = self.measured(results)
        if place in cells:
            return f"{mean_std(cells[place].best)} (n = {cells[place].n})"
        jobs = self.jobs(factory)
        missing = [job for job in jobs if job.name not in records]
        hours = sum(job.gpu_hours for job in missing)
        done = len(jobs) - len(missing)
        return f"{done} of {len(jobs)} runs, ≈ {hours:,.0f} GPU hours to go"


class Table1(PaperTable):
    """All four tasks, fine-tuned from one pre-training."""

    number = 1
    columns = tuple(RECIPES)
    headers = ("", "task")
    highlights = {
        ("EAT", "AS-2M"): "AS-2M mAP",
        ("EAT", "AS-20K"): "AS-20K mAP",
        ("EAT", "ESC-50"): "ESC-50 accuracy",
        ("EAT", "SPC-2"): "SPC-2 accuracy",
    }

    def run(self, factory: JobFactory, place: Place, seed: int) -> tuple[Job, ...]:
        """Fine-tune on a task, on each fold of ESC-50."""
        task, start = place[1], factory.pretraining(seed)
        if task != "ESC-50":
            return (factory.finetuning(task, start, seed),)
        return tuple(factory.finetuning(task, start, seed, fold=f) for f in FOLDS)

    def fields(self, results: Results, folder: Path) -> dict[str, str]:
        """Add the scores of other systems and independent reproductions."""
        reruns = read_data("reproductions")
        return {
            **super().fields(results, folder),
            "systems": self._systems(),
            "reproductions": markdown_table(reruns, list(reruns[0])),
        }

    def _systems(self) -> str:
        rows: dict[str, dict[str, str]] = {}
        for found in read_data("reported"):
            if found["table"] == self.name and found["row"] != "EAT":
                row = rows.setdefault(found["row"], {"system": found["row"]})
                row[found["column"]] = found["value"]
                row["source"] = found["source"]
        return markdown_table(list(rows.values()), ["system", *RECIPES, "source"])


class Table2(PaperTable):
    """AS-20K and the cost of pre-training."""

    number = 2
    headers = ("", "task")
    highlights = {("EAT", "GPU hours"): "GPU hours of pre-training"}

    def run(self, factory: JobFactory, place: Place, seed: int) -> tuple[Job, ...]:
        """Pre-train and fine-tune with the default settings."""
        return (factory.finetuning("AS-20K", factory.pretraining(seed), seed),)

    def scores(self, results: Results) -> str:
        """Return the cost of each system's pre-training, and of ours."""
        rows: dict[str, dict[str, str]] = {}
        for (model, column), value in reported(self.name).items():
            rows.setdefault(model, {"model": f"{model}, paper"})[column] = value
        if ours := self._cost(results):
            rows["ours"] = ours
        columns = ["model", "epochs", "GPU hours", "hardware", "clips/s"]
        columns += ["GFLOP per clip", "AS-20K"]
        return markdown_table(list(rows.values()), columns)

    def _cost(self, results: Results) -> dict[str, str] | None:
        factory, records = results
        names = [factory.pretraining(seed).name for seed in factory.seeds]
        runs = [records[name] for name in names if name in records]
        scores = self.measured(results).get(("EAT", "AS-20K"))
        if not runs or not scores:
            return None
        costs = [run["cost"] for run in runs]
        hours = statistics.mean(cost["device_hours"] for cost in costs)
        speed = statistics.mean(cost["clips_per_second"] for cost in costs)
        devices = sorted({f"{cost['devices']} {cost['device']}" for cost in costs})
        return {
            "model": "EAT, ours",
            "epochs": str(factory.scale.epochs),
            "GPU hours": f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}",
            "hardware": ", ".join(devices),
            "clips/s": f"{speed:.0f}",
            "GFLOP per clip": f"{costs[0]['gflop_per_clip']:.4g}",
            "AS-20K": mean_std(scores.best),
        }

    def status(self, results: Results, place: Place) -> str:
        """Return the measured cost, or what it takes to get it."""
        ours = self._cost(results)
        return ours[place[1]] if ours else super().status(results, place)


class Table3(PaperTable):
    """Block sizes of the masks, and a mix of three."""

    number = 3
    rows = (*(f"{size}x{size}" for size in range(1, 9)), "6x4,5x5,8x3")
    headers = ("blocks", "")
    highlights = {
        ("1x1", "AS-20K"): "random masks, AS-20K",
        ("5x5", "AS-20K"): "5x5 blocks, AS-20K",
    }

    def run(self, factory: JobFactory, place: Place, seed: int) -> tuple[Job, ...]:
        """Pre-train with other blocks and fine-tune on AS-20K."""
        blocks = place[0]
        changed = {} if blocks == factory.scale.blocks else {"blocks": blocks}
        start = factory.pretraining(seed, **changed)
        return (factory.finetuning("AS-20K", start, seed),)


class Figure(PaperTable):
    """A table that is also drawn, with a curve for each column."""

    kind = "figure"
    x_label: ClassVar[str]
    colors: ClassVar[tuple[str, ...]] = (BLUE, VERMILION)
    levels: ClassVar[dict[str, float]] = {}

    def fields(self, results: Results, folder: Path) -> dict[str, str]:
        """Add the picture."""
        path = folder / f"{self.name}.png"
        curves = self.curves(results)
        ticks = list(dict.fromkeys(row for row, _ in self.places(results[0].scale)))
        axes = (self.x_label, "mAP, best epoch (%)")
        plot_curves(curves, ticks, path, *axes, levels=self.levels)
        picture = f"![Figure {self.number}]({path.name})"
        return {**super().fields(results, folder), "picture": picture}

    def curves(self, results: Results) -> list[Curve]:
        """Return the paper's curve and ours for each column."""
        cells, curves = self.measured(results), []
        for column, color in zip(self.columns, self.colors, strict=False):
            suffix = f", {column} pooling" if len(self.columns) > 1 else ""
            ours = {r: cell.best for (r, c), cell in cells.items() if c == column}
            if paper := reported_curve(self.name, column):
                curves.append(Curve(f"paper{suffix}", paper, color, "D--"))
            if ours:
                curves.append(Curve(f"ours{suffix}", ours, color, "o-"))
        return curves


class Figure3(Figure):
    """AS-20K after each epoch of one pre-training."""

    number = 3
    rows = tuple(str(epoch) for epoch in range(1, 11))
    headers = ("epoch", "")
    highlights = {("1", "AS-20K"): "1 epoch", ("10", "AS-20K"): "10 epochs"}
    x_label = "pre-training epochs"
    levels = {"Audio-MAE, 32 epochs": 37.1, "BEATs iter3, 342 epochs": 38.3}

    def places(self, scale: Scale) -> list[Place]:
        """Return the epochs of pre-training."""
        return super().places(scale)[: scale.epochs]

    def run(self, factory: JobFactory, place: Place, seed: int) -> tuple[Job, ...]:
        """Fine-tune the model that was saved after an epoch."""
        model = f"models/epoch{place[0]}"
        return (factory.finetuning("AS-20K", factory.pretraining(seed), seed, model),)


class Figure4(Figure):
    """Weights of the utterance loss, with either pooling."""

    number = 4
    rows = ("0", "0.01", "0.1", "1", "5", "10")
    columns = ("cls", "mean")
    headers = ("lambda", "pooling")
    highlights = {("0", "cls"): "weight 0", ("1", "cls"): "weight 1"}
    x_label = "weight of the utterance loss"

    def run(self, factory: JobFactory, place: Place, seed: int) -> tuple[Job, ...]:
        """Pre-train with another weight, fine-tune with either pooling."""
        weight, pooling = place
        weighted = {} if weight == "1" else {"lambda": float(weight)}
        pooled = {} if pooling == factory.scale.pooling else {"pooling": pooling}
        start = factory.pretraining(seed, **weighted)
        return (factory.finetuning("AS-20K", start, seed, **pooled),)


TABLES: dict[str, PaperTable] = {
    table.name: table for table in (Table1(), Table2(), Table3(), Figure3(), Figure4())
}
