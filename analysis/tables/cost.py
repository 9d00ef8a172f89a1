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


def _costs(records: Records) -> pd.DataFrame:
    """Row id to the mean cost of one iteration over the complete trials on all tasks, and ``n``, their number."""
    trials = records.trials
    every = {task.name for task in records.plan.tasks}
    whole = trials[(trials["status"] == schema.COMPLETE) & trials["tasks"].map(lambda names: set(names) == every)]
    per_iteration = [name for name in schema.ALL_COSTS if name not in {"iterations", schema.PEAK_MEMORY}]
    frame = whole[["row", schema.PEAK_MEMORY]].copy()
    for name in per_iteration:
        frame[name] = whole[name] / whole["iterations"]
    out = frame.groupby("row").mean()
    out["n"] = frame.groupby("row").size()
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
    base = float(costs[schema.PEAK_MEMORY].get(REFERENCE, math.nan))
    lines = []
    for row in _rows(records):
        own = costs.loc[row.id] if row.id in costs.index else None
        line = {"row": row.label, "n": 0 if own is None else int(own["n"])}
        for name, short in _PER_ITERATION.items():
            line[short] = math.nan if own is None else float(own[name])
        memory = math.nan if own is None else float(own[schema.PEAK_MEMORY])
        lines.append({**line, "memory": memory, "memory_ratio": memory / base})
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
    return listing(lines, list(lines[0]), name="table1", title=title, shown=shown, footnotes=notes)


def e1(records: Records) -> pd.DataFrame:
    """Table E.1: seconds of one iteration by phase, in all, and relative to GD, beside the published ones.

    Published: ViT-L, 11 Taskonomy tasks, A6000. The share of a phase compares, seconds do not.
    """
    costs = _costs(records)
    published = step_seconds().pivot_table(index="row", columns="phase", values="seconds", aggfunc="first")
    base = float(costs["seconds"].get(REFERENCE, math.nan))
    lines = []
    for row in _rows(records):
        own = costs.loc[row.id] if row.id in costs.index else None
        line: dict[str, object] = {"row": row.label, "n": 0 if own is None else int(own["n"])}
        for phase in schema.PHASES:
            line[phase] = math.nan if own is None else 1000 * float(own[f"seconds_{phase}"])
        total = math.nan if own is None else float(own["seconds"])
        line |= {"total": 1000 * total, "ratio": total / base}
        names = [place.row for place in row.published if place.row in published.index]
        printed = published.loc[names[0]] if names else None
        line["published_ratio"] = math.nan if printed is None else printed["total"] / published.loc["GD", "total"]
        line["manipulation_share"] = _share(line["gradient_manipulation"], line["total"])
        line["published_share"] = (
            math.nan if printed is None else _share(printed.get("gradient_manipulation"), printed["total"])
        )
        lines.append(line)
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
    return listing(lines, list(lines[0]), name="e1", title=title, shown=shown, footnotes=notes)


def _share(part: object, whole: object) -> float:
    return (
        100 * float(part) / float(whole) if isinstance(part, float) and isinstance(whole, float) and whole else math.nan
    )


def _rows(records: Records) -> list[PlanRow]:
    """The rows that train all tasks in one network."""
    every = {task.name for task in records.plan.tasks}
    return [row for row in records.plan.rows if any(set(cell.tasks) == every for cell in row.cells)]
