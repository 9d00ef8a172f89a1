"""What the rows cost beside how good they are, with the line no row is better and cheaper than."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from analysis.escape import DASH
from analysis.records import DEVICE_HOURS, Records
from analysis.report.markup import Cell, Head, RunLinks, safe, section, table
from analysis.report.plot import Dot, pareto, scatter_chart
from analysis.sheet import short_number
from analysis.tables import columns as c
from analysis.tables.results import row_results
from study import schema

_SMALLEST = 0.005
"""Percent that two decimals show as more than nothing."""

_AXES = (("trunk_passes", "trunk passes of a seed"), ("seconds", "seconds of a seed"))


def cost_section(records: Records, frame: pd.DataFrame, links: RunLinks) -> str:
    """A table of costs, and Delta_m over passes and over seconds; empty where no cost is recorded.

    Args:
        records: of the study.
        frame: its rows, of :func:`analysis.tables.rows_table`.
        links: to the runs.
    """
    results = row_results(records)
    if not any(math.isfinite(value) for result in results.values() for value in result.costs.values()):
        return ""
    quality = dict(zip(frame.attrs["row_ids"], zip(frame[c.DELTA_M], frame[c.DELTA_M_SD], strict=True), strict=True))
    fronts, charts = {}, []
    for name, title in _AXES:
        dots = {
            row: Dot(
                result.row.label, result.costs[name], quality[row][0], quality[row][1], row == records.plan.baseline
            )
            for row, result in results.items()
            if math.isfinite(quality[row][0]) and math.isfinite(result.costs[name])
        }
        front = pareto(list(dots.values()))
        fronts[name] = {row for row, dot in dots.items() if dot in front}
        if len(dots) > 1:
            chart = scatter_chart(f"Delta_m over {title}", title, "Delta_m, %", list(dots.values()), front)
            charts.append(f"<figure><figcaption>Delta_m over {safe(title)}</figcaption>{chart}</figure>")
    unit = hours_name(records.trials)
    heads = [Head("row", words=True), Head("Delta_m %", "up"), Head("on the Pareto line of", words=True)]
    heads.append(Head(unit, "down"))
    heads += [
        Head(name.replace("_", " "), "" if name in ("iterations", "samples") else "down") for name in schema.COSTS
    ]
    rows: list[tuple[str, Sequence[Cell]]] = []
    for row, result in results.items():
        mean = quality[row][0]
        hours = result.costs[DEVICE_HOURS]
        runs = _runs(records, row)
        on = [name.replace("_", " ") for name, front in fronts.items() if row in front]
        shown = DASH if not math.isfinite(mean) else f"{mean:+.2f}" if abs(mean) >= _SMALLEST else "0.00"
        cells = [
            Cell(safe(result.row.label)),
            Cell(shown, mean),
            Cell("both" if len(on) == len(_AXES) else safe(on[0] if on else DASH)),
        ]
        cells.append(Cell(short_number(hours), hours))
        for name in schema.COSTS:
            value = result.costs[name]
            text = short_number(value)
            cells.append(Cell(links.link(runs, text) if math.isfinite(value) else text, value))
        rows.append(("baseline" if row == records.plan.baseline else "", cells))
    what = (
        "A seed's cost is the sum over its trials: single-task training counts all its networks. Seconds are of the "
        f"training loop; {unit} are of all the devices that a trial held meanwhile, or of its part of a shared one."
    )
    line = (
        "Pareto line: rows that no other row is both cheaper and better than; filled points on it. Whiskers: ± sample "
        "standard deviation of Delta_m over seeds. Dashed: the baseline."
    )
    return section(
        "cost",
        "Cost beside quality",
        [
            f"<p>{what} {safe(total_hours(records))}</p>",
            f'<div class="pair">{"".join(charts)}</div><p class="notes">{line}</p>' if charts else "",
            table("cost-table", "Costs of a seed, mean over seeds", heads, rows),
        ],
    )


def hours_name(trials: pd.DataFrame) -> str:
    """``GPU-hours``, ``core-hours``, or ``device-hours`` where there are both, or no device is named."""
    devices = [str(device) for device in trials[schema.DEVICE] if device]
    names = {"GPU-hours" if device.startswith("cuda") else "core-hours" for device in devices}
    return names.pop() if len(names) == 1 else "device-hours"


def total_hours(records: Records) -> str:
    """What every complete trial of the study took together, in one sentence; shared ones count once."""
    complete = records.trials[records.trials["status"] == schema.COMPLETE].drop_duplicates("trial_key")
    hours = float(complete[DEVICE_HOURS].sum())
    if not hours > 0:
        return ""
    return f"All {len(complete)} complete trials together: {hours:.3g} {hours_name(complete)}."


def _runs(records: Records, row: str) -> list[tuple[str, str]]:
    trials = records.trials[(records.trials["row"] == row) & (records.trials["status"] == schema.COMPLETE)]
    return list(trials[["experiment_id", "run_id"]].itertuples(index=False, name=None))
