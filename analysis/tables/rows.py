"""The table every study has: one line per row of its plan, published numbers beside measured ones."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.plan import Plan, PlanRow
from analysis.records import Records
from analysis.stats import summarize
from analysis.tables import columns as c
from analysis.tables.footnotes import footnotes
from analysis.tables.published import places_of, settings_of, suffix
from analysis.tables.results import RowResult, gain, row_results


def rows_table(records: Records) -> pd.DataFrame:
    """A study's rows with their final test metrics.

    Index: the row's label. Columns: the mean of each task over the seeds there are (under its abbreviation);
    ``delta_m`` in percent, ``delta_m_sd``, ``delta_m_ci95`` (half width), ``delta_m_paired_spread`` as
    :mod:`analysis.stats` defines them; ``n``, the number of seeds with every task; ``published``, ``published_spread``,
    ``published_recomputed`` in percent, and again per backbone (``published_vit_l``) where the rows were published for
    several; ``trunk_passes`` and ``seconds`` of a seed (summed over its trials), mean over seeds; ``note``, what is
    missing and why.

    A seed whose trials are not all complete is left out and noted. A trial that diverged makes the numbers it was to
    give NaN, whatever the other seeds say: the mean of the seeds that survived would flatter the row.

    ``attrs``: ``title``, ``study``, ``profile``, ``baseline`` (label), ``row_ids``, ``columns`` (see
    :func:`analysis.tables.columns.column`) and ``footnotes``.
    """
    plan = records.plan
    results = row_results(records)
    baseline = baseline_values(plan, results)
    settings = settings_of(plan)
    lines = [_line(plan, results, results[row.id], baseline, settings) for row in plan.rows]
    names = [entry["name"] for entry in c.columns_of(plan)]
    table = pd.DataFrame(
        lines, index=pd.Index([row.label for row in plan.rows], name="row", dtype="str"), columns=names
    )
    table.attrs = {
        "title": plan.title,
        "study": plan.study,
        "profile": plan.profile,
        "baseline": plan.row(plan.baseline).label if plan.baseline is not None else None,
        "row_ids": [row.id for row in plan.rows],
        "columns": c.columns_of(plan),
        "footnotes": footnotes(records, results, baseline),
    }
    return table


def baseline_values(plan: Plan, results: dict[str, RowResult]) -> dict[str, float]:
    """Task name to the baseline row's mean over its seeds, NaN where it has none; empty without a baseline row."""
    if plan.baseline is None:
        return {}
    result = results[plan.baseline]
    return {task.name: summarize(result.task_values(task.name)).mean for task in plan.tasks}


def _line(
    plan: Plan,
    results: dict[str, RowResult],
    result: RowResult,
    baseline: dict[str, float],
    settings: dict[str, str],
) -> dict[str, Any]:
    full = result.full_seeds(plan)
    line: dict[str, Any] = {
        column: summarize(result.task_values(task)).mean for task, column in c.task_columns(plan).items()
    }
    gains = summarize(gain(values, baseline, plan) for values in full.values()) if baseline else summarize(())
    line |= {
        c.DELTA_M: gains.mean,
        c.DELTA_M_SD: gains.sd,
        c.DELTA_M_CI95: gains.half_width,
        c.DELTA_M_PAIRED: math.nan,
        c.N: sum(all(math.isfinite(value) for value in values.values()) for values in full.values()),
        c.TRUNK_PASSES: result.costs[c.TRUNK_PASSES],
        c.SECONDS: result.costs[c.SECONDS],
        c.NOTE: "; ".join(result.notes),
    }
    if plan.baseline is not None and plan.baseline != result.row.id:
        same_seed = results[plan.baseline].full_seeds(plan)
        paired = (gain(values, same_seed[seed], plan) for seed, values in full.items() if seed in same_seed)
        line[c.DELTA_M_PAIRED] = summarize(paired).sd
    return line | _published(plan, result.row, settings)


def _published(plan: Plan, row: PlanRow, settings: dict[str, str]) -> dict[str, float]:
    """The first place the row is printed at, and the first of each setting; columns without one are left out."""
    places, _ = places_of(plan, row)
    numbers: dict[str, float] = {}
    for place in places:
        for end in ("", suffix(settings[place.setting])):
            numbers.setdefault(c.PUBLISHED + end, place.delta_m)
            numbers.setdefault(c.PUBLISHED_SPREAD + end, place.spread)
            numbers.setdefault(c.PUBLISHED_RECOMPUTED + end, place.recomputed)
    return numbers
