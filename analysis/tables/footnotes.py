"""What has to be said under a table: where it was measured, against what, and what is wrong in published numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from analysis.plan import Plan
from analysis.records import Records
from analysis.reference import known_errors
from analysis.tables.columns import TRUNK_PASSES
from analysis.tables.published import Place, places_of, settings_of
from analysis.tables.results import RowResult
from study import schema

PAPER_PROFILE = "paper"

UNEQUAL = 1.5
"""Ratio of trunk passes from which rows are said to differ in compute."""


def footnotes(records: Records, results: Mapping[str, RowResult], baseline: Mapping[str, float]) -> list[str]:
    """Every footnote of a study's table, in order; ``baseline`` is task name to value, empty without one."""
    plan = records.plan
    found = [places_of(plan, row) for row in plan.rows]
    places = [place for row_places, _ in found for place in row_places]
    settings = list(settings_of(plan).values())
    apart = [f"published numbers of different settings ({', '.join(settings)}) do not compare with each other"]
    return [
        _measured(records, places),
        *(apart if len(settings) > 1 else []),
        *_against(plan, results, baseline),
        *_unequal(plan, results),
        *_mixed(records),
        *(problem for _, problems in found for problem in problems),
        *_errors(places),
    ]


def _unequal(plan: Plan, results: Mapping[str, RowResult]) -> list[str]:
    """Rows that did clearly different amounts of work: equal iterations are not equal compute."""
    passes = [results[row.id].costs[TRUNK_PASSES] for row in plan.rows if row.id != plan.baseline]
    spent = [value for value in passes if math.isfinite(value) and value > 0]
    if not spent or max(spent) < UNEQUAL * min(spent):
        return []
    return [
        f"rows make from {min(spent):,.0f} to {max(spent):,.0f} trunk passes a seed: equal iterations are not equal "
        "compute, read Delta_m beside the passes"
    ]


def _measured(records: Records, places: list[Place]) -> str:
    plan = records.plan
    complete = records.trials[records.trials["status"] == schema.COMPLETE]
    if complete.empty:
        text = f"nothing measured yet at profile {plan.profile}"
    else:
        data, backbone, device = (
            ", ".join(_distinct(complete[tag])) for tag in (schema.DATA, schema.BACKBONE, schema.DEVICE)
        )
        details = ", ".join(part for part in (backbone, device) if part)
        text = f"measured on {data or 'unnamed data'} at profile {plan.profile}{f' ({details})' if details else ''}"
    if not places:
        return text
    text += f"; published: {_published(places)}, 40,000 iterations"
    return text if plan.profile == PAPER_PROFILE else f"{text}: compare orders, not values"


def _published(places: list[Place]) -> str:
    """``Taskonomy, ViT-L (Table 4), ViT-B (Table D.1, D.5)``."""
    settings: dict[str, list[str]] = {}
    for place in places:
        settings.setdefault(place.backbone, []).append(place.paper_table)
    shown = [
        f"{backbone or 'backbone not named'} (Table {', '.join(sorted(_distinct(tables)))})"
        for backbone, tables in settings.items()
    ]
    return ", ".join([*_distinct(place.dataset_name for place in places), *shown])


def _against(plan: Plan, results: Mapping[str, RowResult], baseline: Mapping[str, float]) -> list[str]:
    if plan.baseline is None:
        return ["no baseline is named, so there is no Delta_m"]
    label = plan.row(plan.baseline).label
    zero = [task for task, value in baseline.items() if value == 0]
    lacking = [task for task, value in baseline.items() if math.isnan(value)]
    if zero or lacking:
        why = [f"{', '.join(zero)} 0"] * bool(zero) + [f"no value of {', '.join(lacking)}"] * bool(lacking)
        return [f"Delta_m is undefined: {label} has {' and '.join(why)}"]
    counts = {len(results[plan.baseline].task_values(task.name)) for task in plan.tasks}
    over = str(counts.pop()) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return [
        f"Delta_m in percent, mean ± sample standard deviation over n seeds, against the mean of {label} over {over} "
        f"seed{'' if over == '1' else 's'}"
    ]


def _mixed(records: Records) -> list[str]:
    """Differences between the trials of a table that make its numbers less comparable than they look."""
    complete = records.trials[records.trials["status"] == schema.COMPLETE]
    notes = []
    if len(_distinct(complete[schema.DATA_FINGERPRINT])) > 1:
        notes.append("the trials were trained on different data (their data fingerprints differ)")
    if len(_distinct(complete[schema.HOST] + " " + complete[schema.DEVICE])) > 1:
        notes.append("the trials ran on different machines or devices: their seconds do not compare")
    return notes


def _errors(places: list[Place]) -> list[str]:
    """Known errors of the rows shown; rows that share one are named together."""
    rows: dict[tuple[str, str], list[str]] = {}
    for place in places:
        for error in known_errors(place.table, place.row):
            rows.setdefault((place.paper_table, error.note), []).append(error.row)
    return [
        f"Table {table}{''.join(f', {name}' for name in _distinct(names))}: {note}"
        for (table, note), names in rows.items()
    ]


def _distinct(values: Iterable[str]) -> list[str]:
    """Non-empty ones, in order of first appearance."""
    return list(dict.fromkeys(value for value in values if value.strip()))
