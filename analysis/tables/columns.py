"""Names and headers of a table's columns, and what ``DataFrame.attrs`` says about them."""

from __future__ import annotations

from typing import Any

from analysis.plan import Plan
from analysis.tables.published import settings_of, suffix

DELTA_M = "delta_m"
DELTA_M_SD = "delta_m_sd"
DELTA_M_CI95 = "delta_m_ci95"
DELTA_M_PAIRED = "delta_m_paired_spread"
N = "n"
PUBLISHED = "published"
PUBLISHED_SPREAD = "published_spread"
PUBLISHED_RECOMPUTED = "published_recomputed"
FIRST_PUBLISHED = "first_published"
"""The role of ``published`` where settings have columns of their own: for files, not shown."""
TRUNK_PASSES = "trunk_passes"
SECONDS = "seconds"
GROUPS = "groups"
NOTE = "note"
VALIDATION = "validation"
"""The role of a Delta_m on the validation split."""

_RESERVED = (DELTA_M, N, PUBLISHED, TRUNK_PASSES, SECONDS, GROUPS, NOTE)
"""Names a task's abbreviation might be; no abbreviation looks like the others."""

TASK = "task"
"""The role of a task's column; the other columns are their own role."""


def column(name: str, header: str, role: str, direction: str = "", spread: str = "") -> dict[str, Any]:
    """One entry of ``attrs["columns"]``.

    Args:
        name: of the data frame's column.
        header: as shown.
        role: what sort of column; a task's is :data:`TASK`.
        direction: ``up`` where higher is better, ``down`` where lower is, empty where neither.
        spread: the column shown behind a "±".
    """
    return {"name": name, "header": header, "role": role, "direction": direction, "spread": spread}


def columns_of(plan: Plan) -> list[dict[str, Any]]:
    """Every column of a study's table, tasks first.

    Published numbers of several settings (data set and backbone) do not compare, so each setting gets columns of its
    own beside ``published``, which holds the first of a row whatever its setting.
    """
    columns = [
        column(name, name, TASK, "up" if task.higher_is_better else "down")
        for task, name in zip(plan.tasks, task_columns(plan).values(), strict=True)
    ]
    columns += [
        column(DELTA_M, "Delta_m %", DELTA_M, "up", DELTA_M_SD),
        column(DELTA_M_SD, "sd of Delta_m", DELTA_M_SD),
        column(DELTA_M_CI95, "95% interval of Delta_m, half width", DELTA_M_CI95),
        column(DELTA_M_PAIRED, "sd of Delta_m against the baseline of the same seed", DELTA_M_PAIRED),
        column(N, "n", N),
    ]
    settings = settings_of(plan)
    shown = len(settings) < 2
    columns += _published("", "published %", "recomputed %", shown=shown)
    if not shown:
        for name in settings.values():
            columns += _published(suffix(name), f"published {name} %", f"recomputed {name} %")
    columns += [column(TRUNK_PASSES, "trunk passes", TRUNK_PASSES), column(SECONDS, "seconds", SECONDS)]
    return [*columns, column(NOTE, "note", NOTE)]


def _published(end: str, header: str, recomputed: str, *, shown: bool = True) -> list[dict[str, Any]]:
    """The recomputed value is shown only where there is one setting: with several it is in the files."""
    spread = PUBLISHED_SPREAD + end
    return [
        column(PUBLISHED + end, header, PUBLISHED if shown else FIRST_PUBLISHED, "", spread),
        column(spread, f"spread of {header}", PUBLISHED_SPREAD),
        column(PUBLISHED_RECOMPUTED + end, recomputed, PUBLISHED_RECOMPUTED if shown and not end else FIRST_PUBLISHED),
    ]


def task_columns(plan: Plan) -> dict[str, str]:
    """Task name to column name: the abbreviation, or the task's own name where that is taken."""
    taken = set(_RESERVED)
    columns: dict[str, str] = {}
    for task in plan.tasks:
        columns[task.name] = task.name if not task.short or task.short in taken else task.short
        taken.add(columns[task.name])
    return columns
