"""Rows at equal compute: beside their results, Delta_m on the validation split where they had spent what GD spends."""

from __future__ import annotations

import math

import pandas as pd

from analysis.records import Records
from analysis.stats import summarize
from analysis.tables import columns as c
from analysis.tables.at_cost import PASSES, SECONDS, Reading, readings, reference_cost, validation_gains
from analysis.tables.cost import REFERENCE
from analysis.tables.paper import with_groups
from study import schema

VAL = "val_delta_m"
AT_PASSES = "val_at_gd_passes"
AT_SECONDS = "val_at_gd_seconds"
_HEADERS = {VAL: "val Delta_m %", AT_PASSES: "val at GD's passes", AT_SECONDS: "val at GD's seconds"}
_UNITS = {AT_PASSES: (PASSES, "passes"), AT_SECONDS: (SECONDS, "seconds")}


def equal_compute(records: Records) -> pd.DataFrame:
    """:func:`analysis.tables.paper.with_groups` with three more columns, each with its spread over seeds (``_sd``):
    ``val_delta_m``, Delta_m on the validation split at the end, in percent; ``val_at_gd_passes`` and
    ``val_at_gd_seconds``, the same where a row had spent the trunk passes, or the seconds, that GD spends in full.

    A row that spent less has its final value there, and a note. Rows of several networks, and rows a seed of which
    diverged, have NaN.
    """
    table = with_groups(records)
    gains = validation_gains(records)
    trials = records.trials
    diverged = set(trials.loc[trials["status"] == schema.DIVERGED, "row"])
    rows = [row.id for row in records.plan.rows if row.id not in diverged]
    targets = {name: reference_cost(records, cost) for name, (cost, _) in _UNITS.items()}
    found = {VAL: readings(gains, rows, PASSES, math.inf)}
    for name, (cost, _) in _UNITS.items():
        found[name] = readings(gains, rows, cost, targets[name]) if math.isfinite(targets[name]) else {}
    place = table.columns.to_list().index(c.NOTE)
    for name, header in _HEADERS.items():
        summaries = [summarize(found[name][row].values if row in found[name] else ()) for row in table.attrs["row_ids"]]
        for column, values in ((name, [s.mean for s in summaries]), (f"{name}_sd", [s.sd for s in summaries])):
            table.insert(place, column, values)
            place += 1
        entries = table.attrs["columns"]
        entries.insert(-1, c.column(name, header, c.VALIDATION, "up", f"{name}_sd"))
        entries.insert(-1, c.column(f"{name}_sd", f"sd of {header}", c.DELTA_M_SD))
    table[c.NOTE] = [
        "; ".join(part for part in (note, *_notes(row, found)) if part)
        for row, note in zip(table.attrs["row_ids"], table[c.NOTE], strict=True)
    ]
    table.attrs["footnotes"] = [*table.attrs["footnotes"], *_footnotes(records, gains, targets)]
    return table


def _notes(row: str, found: dict[str, dict[str, Reading]]) -> list[str]:
    """Where a reading is not what its column says."""
    notes = []
    for name, (_, unit) in _UNITS.items():
        reading = found[name].get(row)
        if reading is None or row == REFERENCE:
            continue
        seeds = len(reading.values)
        if reading.early:
            who = "" if reading.early == seeds else f"{reading.early} of {seeds} seeds "
            notes.append(f"{who}ended before GD's {unit}: final value there")
        if reading.late:
            notes.append(f"first evaluated after GD's {unit}")
    return notes


def _footnotes(records: Records, gains: pd.DataFrame, targets: dict[str, float]) -> list[str]:
    if gains.empty:
        return ["no curve on the validation split to read at equal passes or seconds"]
    if any(map(math.isnan, targets.values())):
        return [f"row '{REFERENCE}' is not recorded: nothing to hold passes and seconds equal to"]
    complete = records.trials[records.trials["status"] == schema.COMPLETE]
    machines = dict.fromkeys(
        f"{device or 'an unnamed device'} of {host}" if host else device or "an unnamed device"
        for device, host in zip(complete[schema.DEVICE], complete[schema.HOST], strict=True)
    )
    return [
        "val: on the validation split, against the baseline's final validation metrics; not to be compared with "
        "Delta_m on the test split",
        f"at GD's passes ({targets[AT_PASSES]:,.0f}) and seconds ({targets[AT_SECONDS]:,.3g}): read off each seed's "
        "evaluations, straight lines between them, where it had spent the mean of GD's; what is read before a run's "
        "end was trained at the learning rates of the longer run",
        f"seconds: of training without evaluation, as measured on {', '.join(machines)}",
    ]
