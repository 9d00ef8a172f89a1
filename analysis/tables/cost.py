"""Tables 1 and E.1: what a step of each method costs - passes, steps, memory, seconds by phase."""

from __future__ import annotations

import math

import pandas as pd

from analysis.listing import listing
from analysis.plan import PlanRow
from analysis.records import Records
from analysis.reference import step_seconds
from study import schema

REFERENCE = "gd"
"""Id of the row that costs are given relative to."""

_PER_ITERATION = {
    "forward_passes": "forward",
    "backward_passes": "backward",
    "optimizer_steps": "steps",
}


def _costs(records: Records) -> dict[str, dict[str, float]]:
    """Row id to the mean cost of one iteration over the complete trials on all tasks, and ``n``, their number."""
    trials = records.trials
    every = {task.name for task in records.plan.tasks}
    whole = trials[(trials["status"] == schema.COMPLETE) & trials["tasks"].map(lambda names: set(names) == every)]
    out: dict[str, dict[str, float]] = {}
    for row, group in whole.groupby("row"):
        means = {name: float((group[name] / group["iterations"]).mean()) for name in schema.ALL_COSTS}
        memory = float(group[schema.PEAK_MEMORY].mean())
        out[str(row)] = {**means, schema.PEAK_MEMORY: memory, "n": float(len(group))}
    return out


def _footnotes(records: Records) -> list[str]:
    complete = records.trials[records.trials["status"] == schema.COMPLETE]
    if complete.empty:
        return [f"nothing measured yet at profile {records.plan.profile}"]
    details = ", ".join(str(value) for tag in (schema.BACKBONE, schema.DEVICE) for value in complete[tag].unique())
    return [f"measured on {', '.join(complete[schema.DATA].unique())} at profile {records.plan.profile} ({details})"]


def table1(records: Records) -> pd.DataFrame:
    """Table 1, measured: passes and optimizer steps of one iteration, and peak device memory relative to GD.

    The paper's table holds orders (O(1), O(K), O(M)); here are the counts. One line per row of the study that trains
    all tasks in one network. Memory is NaN on a CPU, whose allocator does not tell.
    """
    costs = _costs(records)
    base = costs.get(REFERENCE, {}).get(schema.PEAK_MEMORY, math.nan)
    lines: list[dict[str, object]] = []
    for row in _rows(records):
        own = costs.get(row.id, {})
        memory = own.get(schema.PEAK_MEMORY, math.nan)
        counts = {short: own.get(name, math.nan) for name, short in _PER_ITERATION.items()}
        lines.append(
            {"row": row.label, "n": int(own.get("n", 0)), **counts, "memory": memory, "memory_ratio": memory / base}
        )
    shown = {
        "row": ("row", ""),
        "n": ("n", "d"),
        "forward": ("forward passes", ".2f"),
        "backward": ("backward passes", ".2f"),
        "steps": ("optimizer steps", ".2f"),
        "memory_ratio": ("memory / GD", ".2f"),
    }
    tasks = len(records.plan.tasks)
    notes = [f"counts of one iteration on {tasks} tasks, mean over n trials", *_footnotes(records)]
    title = "Complexity of one iteration (Table 1, measured)"
    return listing(lines, _columns(lines), name="table1", title=title, shown=shown, footnotes=notes)


def e1(records: Records) -> pd.DataFrame:
    """Table E.1: seconds of one iteration by phase, in all, and relative to GD, beside the published ones.

    Published: ViT-L, 11 Taskonomy tasks, A6000. The share of a phase compares, seconds do not.
    """
    costs = _costs(records)
    printed = _printed()
    nothing: dict[str, float] = {}
    base = costs.get(REFERENCE, nothing).get("seconds", math.nan)
    lines: list[dict[str, object]] = []
    for row in _rows(records):
        own = costs.get(row.id, nothing)
        there = next((printed[place.row] for place in row.published if place.row in printed), nothing)
        phases = {phase: 1000 * own.get(f"seconds_{phase}", math.nan) for phase in schema.PHASES}
        total = 1000 * own.get("seconds", math.nan)
        lines.append(
            {
                "row": row.label,
                "n": int(own.get("n", 0)),
                **phases,
                "total": total,
                "ratio": total / (1000 * base),
                "published_ratio": there.get("total", math.nan) / printed["GD"]["total"],
                "manipulation_share": 100 * phases["gradient_manipulation"] / total,
                "published_share": 100 * there.get("gradient_manipulation", math.nan) / there.get("total", math.nan),
            }
        )
    shown = {
        "row": ("row", ""),
        "n": ("n", "d"),
        "forward": ("forward ms", ".2f"),
        "backward": ("backward ms", ".2f"),
        "gradient_manipulation": ("manipulation ms", ".2f"),
        "optimizer_step": ("optimizer ms", ".2f"),
        "clustering_and_affinity": ("clustering ms", ".2f"),
        "total": ("total ms", ".2f"),
        "ratio": ("/ GD", ".2f"),
        "published_ratio": ("published / GD", ".2f"),
        "manipulation_share": ("manipulation %", ".1f"),
        "published_share": ("published %", ".1f"),
    }
    notes = [
        "milliseconds of one iteration, mean over n trials; total holds loading a batch and writing curves, too",
        "manipulation: what a method's step takes beside the phases of its own",
        *_footnotes(records),
        "published: Taskonomy, ViT-L, 11 tasks (Table E.1): compare ratios and shares, not seconds",
    ]
    title = "Time of one iteration by phase (Table E.1)"
    return listing(lines, _columns(lines), name="e1", title=title, shown=shown, footnotes=notes)


def _printed() -> dict[str, dict[str, float]]:
    """Table E.1: row to phase to seconds."""
    out: dict[str, dict[str, float]] = {}
    for row, phase, seconds in step_seconds()[["row", "phase", "seconds"]].itertuples(index=False, name=None):
        out.setdefault(str(row), {})[str(phase)] = float(seconds)
    return out


def _rows(records: Records) -> list[PlanRow]:
    """The rows that train all tasks in one network."""
    every = {task.name for task in records.plan.tasks}
    return [row for row in records.plan.rows if any(set(cell.tasks) == every for cell in row.cells)]


def _columns(lines: list[dict[str, object]]) -> list[str]:
    """Of the first line; a study with no row on all tasks in one network has none."""
    return list(lines[0]) if lines else ["row"]
