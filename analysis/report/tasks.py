"""Every task's change against single-task training (the baseline row), as bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from analysis.escape import DASH, clean
from analysis.figures.bars import relative_changes
from analysis.plan import PlanRow, PlanTask
from analysis.records import Records
from analysis.report.markup import Cell, Head, details, safe, section, table
from analysis.report.plot import nice_step, number
from analysis.stats import Summary

_WIDTH = 300
_LABELS = 112
_RIGHT = 46
_ROW = 18
_TOP = 6
_BOTTOM = 20
_LONGEST = 15


def tasks_section(records: Records) -> str:
    """A panel per task and the numbers as a table; empty without a baseline, or with nothing to compare."""
    plan = records.plan
    changes = relative_changes(records)
    rows = [row for row in plan.rows if row.id != plan.baseline]
    known = any(math.isfinite(changes[task.name][row.id].mean) for task in plan.tasks for row in rows)
    if plan.baseline is None or not known:
        return ""
    label = plan.row(plan.baseline).label
    panels = "".join(_panel(task, rows, changes[task.name]) for task in plan.tasks)
    return section(
        "tasks",
        "Task by task",
        [
            f"<p>Change of every task's test metric against the mean of {safe(label)}, in percent, signed so that "
            "right of 0 is better. Whiskers: ± sample standard deviation over seeds. Every panel has its own axis.</p>",
            f'<div class="panels">{panels}</div>',
            details("The same as a table", _table(rows, plan.tasks, changes)),
        ],
    )


def _panel(task: PlanTask, rows: Sequence[PlanRow], changes: Mapping[str, Summary]) -> str:
    found = [changes[row.id] for row in rows]
    ends = [0.0]
    for change in found:
        if math.isfinite(change.mean):
            spread = change.sd if math.isfinite(change.sd) else 0.0
            ends += [change.mean - spread, change.mean + spread]
    step = nice_step((max(ends) - min(ends)) / 3 or 1.0)
    low, high = math.floor(min(ends) / step) * step, math.ceil(max(ends) / step) * step
    bottom = _TOP + _ROW * len(rows)

    def x(value: float) -> float:
        return _LABELS + (value - low) / ((high - low) or 1.0) * (_WIDTH - _LABELS - _RIGHT)

    said = "; ".join(f"{clean(row.label)} {_shown(change)}" for row, change in zip(rows, found, strict=True))
    name = f"{clean(task.name)} ({clean(task.metric)})"
    parts = [
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {bottom + _BOTTOM}" role="img" '
        f'aria-label="{escape(f"{name}, change in percent: {said}")}">'
    ]
    for place in range(round((high - low) / step) + 1):
        at = low + place * step
        kind = "zero" if abs(at) < step / 2 else "axis"
        parts.append(f'<path class="{kind}" d="M{x(at):.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text class="tick" x="{x(at):.1f}" y="{bottom + 15}" text-anchor="middle">{number(at)}</text>')
    for place, (row, change) in enumerate(zip(rows, found, strict=True)):
        parts += _bar(clean(row.label), change, _TOP + _ROW * (place + 0.5), x)
    arrow = "↑" if task.higher_is_better else "↓"
    return f"<figure><figcaption>{escape(name)} {arrow}</figcaption>{''.join(parts)}</svg></figure>"


def _bar(label: str, change: Summary, middle: float, x: Callable[[float], float]) -> list[str]:
    shown = label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
    tip = f"<title>{escape(f'{label}: {_shown(change)}')}</title>"
    parts = [f'<g>{tip}<text x="{_LABELS - 6}" y="{middle + 4:.1f}" text-anchor="end">{escape(shown)}</text>']
    if math.isfinite(change.mean):
        left, right = sorted((x(0.0), x(change.mean)))
        kind = "better" if change.mean >= 0 else "worse"
        parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{middle - 6:.1f}" width="{max(right - left, 1):.1f}" height="12"/>'
        )
        if math.isfinite(change.sd):
            start, end = x(change.mean - change.sd), x(change.mean + change.sd)
            parts.append(f'<path class="spread" d="M{start:.1f} {middle:.1f}H{end:.1f}"/>')
    text = _shown(change).partition(" ")[0]
    return [*parts, f'<text class="tick" x="{_WIDTH - 2}" y="{middle + 4:.1f}" text-anchor="end">{text}</text></g>']


def _shown(change: Summary) -> str:
    if not math.isfinite(change.mean):
        return DASH
    return f"{change.mean:+.2f}" + (f" ± {change.sd:.2f}" if math.isfinite(change.sd) else "")


def _table(rows: Sequence[PlanRow], tasks: Sequence[PlanTask], changes: Mapping[str, Mapping[str, Summary]]) -> str:
    heads = [Head("row", words=True), *(Head(f"{task.short or task.name} %", "up") for task in tasks)]
    lines = [
        (
            "",
            [
                Cell(safe(row.label)),
                *(Cell(_shown(change), change.mean) for change in (changes[task.name][row.id] for task in tasks)),
            ],
        )
        for row in rows
    ]
    return table("task-table", "Change of every task against the baseline, percent", heads, lines)
