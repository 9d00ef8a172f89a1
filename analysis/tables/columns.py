"""Names and headers of a table's columns, and what ``DataFrame.attrs`` says about them."""

from __future__ import annotations

from typing import Any

from analysis.plan import Plan

DELTA_M = "delta_m"
DELTA_M_SD = "delta_m_sd"
DELTA_M_CI95 = "delta_m_ci95"
DELTA_M_PAIRED = "delta_m_paired_spread"
N = "n"
PUBLISHED = "published"
PUBLISHED_SPREAD = "published_spread"
PUBLISHED_RECOMPUTED = "published_recomputed"
TRUNK_PASSES = "trunk_passes"
SECONDS = "seconds"
GROUPS = "groups"
NOTE = "note"

TASK = "task"
"""The role of a task's column; the other columns are their own role."""

_SUMMARY = (
    (DELTA_M, "Delta_m %", "up"),
    (DELTA_M_SD, "sd of Delta_m", ""),
    (DELTA_M_CI95, "95% interval of Delta_m, half width", ""),
    (DELTA_M_PAIRED, "sd of Delta_m against the baseline of the same seed", ""),
    (N, "n", ""),
    (PUBLISHED, "published %", ""),
    (PUBLISHED_SPREAD, "published spread", ""),
    (PUBLISHED_RECOMPUTED, "recomputed %", ""),
    (TRUNK_PASSES, "trunk passes", ""),
    (SECONDS, "seconds", ""),
    (NOTE, "note", ""),
)


def column(name: str, header: str, role: str, direction: str = "") -> dict[str, Any]:
    """One entry of ``attrs["columns"]``; ``direction``: ``up`` where higher is better, ``down`` where lower is."""
    return {"name": name, "header": header, "role": role, "direction": direction}


def columns_of(plan: Plan) -> list[dict[str, Any]]:
    """Every column of a study's table, tasks first."""
    tasks = [
        column(name, name, TASK, "up" if task.higher_is_better else "down")
        for task, name in zip(plan.tasks, task_columns(plan).values(), strict=True)
    ]
    return tasks + [column(name, header, name, direction) for name, header, direction in _SUMMARY]


def task_columns(plan: Plan) -> dict[str, str]:
    """Task name to column name: the abbreviation, or the task's own name where that is taken."""
    taken = {name for name, _, _ in _SUMMARY} | {GROUPS}
    columns: dict[str, str] = {}
    for task in plan.tasks:
        columns[task.name] = task.name if not task.short or task.short in taken else task.short
        taken.add(columns[task.name])
    return columns
