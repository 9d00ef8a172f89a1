"""A study made by a search: each method at its defaults beside what the search chose, and what the search spent."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.listing import listing
from analysis.plan import Plan, PlanRow
from analysis.records import Records
from analysis.stats import Summary, summarize
from analysis.tables.footnotes import footnotes
from analysis.tables.results import RowResult, gain, row_results
from analysis.tables.rows import baseline_values
from study import schema

DEFAULT, TUNED = "_default", "_tuned"
"""Ends of the ids of a contender's two rows."""

_COLUMNS = (
    "contender",
    "label",
    "default_row",
    "tuned_row",
    "default",
    "default_sd",
    "tuned",
    "tuned_sd",
    "difference",
    "low",
    "high",
    "n",
    "trials",
    "whole",
    "stopped",
    "diverged",
    "failed",
    "trunk_passes",
    "seconds",
    "note",
)
_SHOWN = {
    "label": ("method", ""),
    "default": ("default %", "+.2f"),
    "default_sd": ("sd", ".2f"),
    "tuned": ("tuned %", "+.2f"),
    "tuned_sd": ("sd", ".2f"),
    "difference": ("tuned - default", "+.2f"),
    "low": ("from", "+.2f"),
    "high": ("to", "+.2f"),
    "n": ("n", "d"),
    "trials": ("trials", "d"),
    "stopped": ("stopped", "d"),
    "trunk_passes": ("passes", ",.0f"),
    "seconds": ("seconds", ",.0f"),
    "note": ("note", ""),
}


def is_of_a_search(plan: Plan) -> bool:
    """Whether every row but the baseline is a contender's, at its defaults or tuned."""
    rows = [row.id for row in plan.rows if row.id != plan.baseline]
    return any(row.endswith(DEFAULT) for row in rows) and all(row.endswith((DEFAULT, TUNED)) for row in rows)


def tuned(records: Records) -> pd.DataFrame:
    """One line per contender: Delta_m at its defaults and tuned (rows ``default_row`` and ``tuned_row``), on the test
    split and fresh seeds, in percent, with the spread over seeds; the difference seed by seed (``difference``) with its
    95 % interval by Student's t (``low``, ``high``) over ``n`` seeds; and what the search of it took: ``trials``, of
    them ``whole``, ``stopped``, ``diverged`` and ``failed``, with their ``trunk_passes`` and ``seconds``.

    A contender without a winner has NaN for it, as has one a seed of which diverged.
    """
    plan = records.plan
    results = row_results(records)
    base = baseline_values(plan, results)
    searched = records.searched
    lines = []
    for row in plan.rows:
        if not row.id.endswith(DEFAULT) or row.id == plan.baseline:
            continue
        contender = row.id.removesuffix(DEFAULT)
        pair = [results.get(contender + end) for end in (DEFAULT, TUNED)]
        lines.append(_line(plan, contender, row, pair, base, searched))
    several = searched.groupby("contender")["search"].nunique().max() if len(searched) else 0
    notes = [
        *footnotes(records, results, base),
        "tuned - default: seed by seed on the test split, with its 95% interval by Student's t over the n seeds of "
        "both; what was chosen was chosen on the validation split and another seed",
        "trials, passes, seconds: what the search of a method took, trials that were stopped or diverged included"
        + (", over all searches of it that are recorded at this profile" if several > 1 else ""),
        f"tasks and seeds one by one: mtl-study report {plan.study}",
    ]
    about = {"study": plan.study, "profile": plan.profile}
    return listing(lines, _COLUMNS, name=plan.study, title=plan.title, shown=_SHOWN, footnotes=notes, about=about)


def _line(
    plan: Plan,
    contender: str,
    row: PlanRow,
    pair: list[RowResult | None],
    base: dict[str, float],
    searched: pd.DataFrame,
) -> dict[str, Any]:
    gains = [_gains(plan, result, base) for result in pair]
    default, winner = (summarize(seeds.values()) for seeds in gains)
    both = sorted(gains[0].keys() & gains[1].keys())
    difference = summarize(gains[1][seed] - gains[0][seed] for seed in both)
    mine = searched[searched["contender"] == contender]
    count = mine["status"].value_counts()
    notes = [
        f"{name}: {note}"
        for name, result in zip(("default", "tuned"), pair, strict=True)
        for note in (result.notes if result else ["no winner is recorded"])
    ]
    if pair[1] and {cell.trial_key for cell in pair[1].row.cells} == {cell.trial_key for cell in row.cells}:
        notes.append("the defaults won")
    return {
        "contender": contender,
        "label": row.label.removesuffix(", default"),
        "default_row": row.label,
        "tuned_row": pair[1].row.label if pair[1] else "",
        **_means("default", default),
        **_means("tuned", winner),
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "n": sum(math.isfinite(gains[1][seed] - gains[0][seed]) for seed in both),
        "trials": len(mine),
        "whole": int(count.get(schema.VALIDATED, 0) + count.get(schema.COMPLETE, 0)),
        "stopped": int(count.get(schema.PRUNED, 0)),
        "diverged": int(count.get(schema.DIVERGED, 0)),
        "failed": int(count.get(schema.FAILED, 0)),
        "trunk_passes": float(mine["trunk_passes"].sum()) if len(mine) else math.nan,
        "seconds": float(mine["seconds"].sum()) if len(mine) else math.nan,
        "note": "; ".join(notes),
    }


def _means(name: str, summary: Summary) -> dict[str, float]:
    return {name: summary.mean, f"{name}_sd": summary.sd}


def _gains(plan: Plan, result: RowResult | None, base: dict[str, float]) -> dict[int, float]:
    """Seed to Delta_m, of the seeds that ended."""
    if result is None or not base:
        return {}
    return {seed: gain(values, base, plan) for seed, values in result.full_seeds(plan).items()}
