"""The paper's published numbers checked against each other: what cannot be right, found from the numbers alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, groupby

import pandas as pd

from analysis.findings import CARE, IMPOSSIBLE, IMPROBABLE, Finding
from analysis.listing import listing
from analysis.printed import PrintedRow, base_of, higher_is_better, printed_rows, read_text
from analysis.reference import SINGLE_TASK
from analysis.rounding import Interval, Printed, chance_of_gap, decimals, gain_interval, gain_rounding_widths
from analysis.statements import check_statements
from analysis.stats import holm

LEVEL = 0.05
"""The chance, over all rows together (Holm), below which rounding is no explanation."""

_COLUMNS = (
    "table",
    "dataset",
    "row",
    "kind",
    "certainty",
    "printed",
    "recomputed",
    "low",
    "high",
    "chance",
    "note",
)
_SHOWN = {
    "table": ("table", ""),
    "row": ("row", ""),
    "kind": ("kind", ""),
    "certainty": ("certainty", ""),
    "printed": ("printed", "+.2f"),
    "recomputed": ("recomputed", "+.3f"),
    "low": ("from", "+.3f"),
    "high": ("to", "+.3f"),
    "chance": ("chance", ".1e"),
    "note": ("what is wrong", ""),
}


def audit() -> pd.DataFrame:
    """Every finding, one per row, to be shown with :func:`analysis.render.render`.

    Delta_m is recomputed from the task numbers as intervals: a printed number is known to half a unit of its last
    digit (see :func:`analysis.printed.printed_rows` for the digits). A printed Delta_m that does not meet its interval
    is ``impossible``. An interval holds even for errors that all push the same way, so a row inside it may still be
    ``improbable``: its gap has a chance below :data:`LEVEL` if rounding errors are independent, after Holm's correction
    over all rows.

    Columns: ``table``, ``dataset``, ``row``, ``kind``, ``certainty``, ``printed``, ``recomputed``, ``low``, ``high``,
    ``chance`` and ``note``, see :class:`analysis.findings.Finding`.
    """
    tested = _recomputed()
    statements, checked = check_statements()
    found = [*_wrong_delta_m(tested), *_repeated(), *_bases(), *_elsewhere(), *_totals(), *statements]
    lines = [
        {
            **{name: getattr(finding, name) for name in _COLUMNS if hasattr(finding, name)},
            "low": finding.range.low,
            "high": finding.range.high,
        }
        for finding in found
    ]
    return listing(
        lines,
        _COLUMNS,
        name="audit",
        title="What cannot be right in the published numbers, or is not what it seems",
        shown=_SHOWN,
        footnotes=[
            f"{len(tested)} printed Delta_m recomputed from printed task numbers, {checked} statements of the text held"
            " against the tables or each other",
            "digits: each number is taken to have as many decimals as the longest one of its task in its table, since "
            "a file of numbers loses zeros at their ends",
            "impossible: no numbers that round to the printed ones agree; improbable: they would have to agree by "
            f"chance, of a Delta_m below {LEVEL} over all {len(tested)} rows (Holm; Chernoff's bound for independent, "
            "uniform rounding errors); care: may be right, and is not what it seems",
            "found from the numbers alone; what takes judgement (how something was made is not stated, or is hard to "
            "believe) is in published/known_errors.csv only",
        ],
    )


@dataclass(frozen=True)
class _Recomputed:
    row: PrintedRow
    printed: Printed
    value: float
    range: Interval
    chance: float

    @property
    def possible(self) -> bool:
        return self.range.overlaps(self.printed.interval)


def _recomputed() -> list[_Recomputed]:
    """Every row with a printed Delta_m and printed task numbers, its base's included."""
    found = []
    for row in printed_rows():
        base = base_of(row)
        values, bases = row.numbers, base.numbers if base is not None else None
        if row.delta_m is None or row.row == SINGLE_TASK or values is None or bases is None:
            continue
        pairs = [(values[task], bases[task], higher_is_better()[row.dataset, task]) for task in values]
        numbers, against, higher = (list(part) for part in zip(*pairs, strict=True))
        value = 100 * math.fsum((1 if up else -1) * (n.value / b.value - 1) for n, b, up in pairs) / len(pairs)
        widths = [*gain_rounding_widths(numbers, against), row.delta_m.half_unit]
        chance = chance_of_gap(row.delta_m.value - value, widths)
        found.append(_Recomputed(row, row.delta_m, value, gain_interval(numbers, against, higher), chance))
    return found


def _wrong_delta_m(tested: list[_Recomputed]) -> Iterator[Finding]:
    chances = holm([entry.chance for entry in tested])
    for entry, chance in zip(tested, chances, strict=True):
        if entry.possible and chance >= LEVEL:
            continue
        gap = entry.printed.value - entry.value
        yield Finding(
            entry.row.table,
            entry.row.dataset,
            entry.row.row,
            "delta_m",
            f"printed {entry.printed.value:.2f}, the printed task numbers give {entry.value:.2f}: a gap of {gap:+.2f}, "
            "more than " + ("rounding is likely to leave" if entry.possible else "rounding can leave"),
            IMPROBABLE if entry.possible else IMPOSSIBLE,
            entry.printed.value,
            entry.value,
            entry.range,
            chance,
        )


def _repeated() -> Iterator[Finding]:
    """Two methods of a table whose task numbers are all the same."""
    for _, group in groupby(printed_rows(), key=lambda row: row.table):
        for one, other in combinations(group, 2):
            if one.dataset != other.dataset or one.numbers is None or one.numbers != other.numbers:
                continue
            for row, twin in ((one, other), (other, one)):
                note = f"its {len(row.tasks)} task numbers are those of {twin.row}"
                if row.delta_m and twin.delta_m and row.delta_m != twin.delta_m:
                    note += f", its Delta_m is not ({row.delta_m.value:.2f} and {twin.delta_m.value:.2f})"
                yield Finding(row.table, row.dataset, row.row, "repeated", note, IMPROBABLE)


def _bases() -> Iterator[Finding]:
    """Rows whose Delta_m is against the single-task row of another table, or of another batch size."""
    for table, group in groupby(printed_rows(), key=lambda row: row.table):
        rows = [row for row in group if row.tasks]
        own = [row for row in rows if row.row == SINGLE_TASK]
        if rows and not own:
            base = base_of(rows[0])
            where = f"that of Table {base.table} (same data set and backbone) gives them" if base else "none is printed"
            yield Finding(table, rows[0].dataset, "", "base", f"no single-task row: {where}", CARE)
        batches = {row.row: batch for row in rows if (batch := _batch(row.row))}
        if not own or len(set(batches.values())) < 2:
            continue
        # The batch of the one base is that of the rows which another table prints with the same base.
        bases = (row for row in printed_rows() if row.row == SINGLE_TASK and row.numbers == own[0].numbers)
        tables = {row.table for row in bases} - {table}
        same = [row.numbers for row in printed_rows() if row.table in tables]
        base_batches = {batches[row.row] for row in rows if row.row in batches and row.numbers in same}
        for row in rows:
            if row.row in batches and batches[row.row] not in base_batches:
                of = ", ".join(map(str, sorted(base_batches))) or "another setting"
                note = f"Delta_m at batch {batches[row.row]} is against the single-task row of batch {of}"
                yield Finding(table, row.dataset, row.row, "base", note, CARE)


def _batch(row: str) -> int | None:
    """``Ours(4)`` to 4."""
    match = re.search(r"\((\d+)\)$", row)
    return int(match.group(1)) if match else None


def _elsewhere() -> Iterator[Finding]:
    """Rows of two tables with the same task numbers and the same base, but another Delta_m."""
    rows = [row for row in printed_rows() if row.numbers is not None and row.delta_m is not None]
    for one, other in combinations(rows, 2):
        if one.table == other.table or one.numbers != other.numbers or one.backbone != other.backbone:
            continue
        if one.delta_m and other.delta_m and not one.delta_m.interval.overlaps(other.delta_m.interval):
            note = f"the task numbers of {one.row} in Table {one.table}, where Delta_m is {one.delta_m.value:.2f}"
            yield Finding(other.table, other.dataset, other.row, "elsewhere", note, printed=other.delta_m.value)


def _totals() -> Iterator[Finding]:
    """Seconds of phases that do not add up to the printed total; every number with the digits it is kept with."""
    seconds = read_text("step_seconds.csv")
    for (table, dataset, row), group in seconds[seconds["seconds"] != ""].groupby(["table", "dataset", "row"]):
        numbers = {
            phase: Printed(float(text), decimals(text))
            for phase, text in zip(group["phase"], group["seconds"], strict=True)
        }
        total = numbers.pop("total", None)
        if total is None:
            continue
        parts = _sum(numbers)
        if not parts.overlaps(total.interval):
            value = math.fsum(number.value for number in numbers.values())
            note = f"the phases add up to {value:.3f} seconds, the total is {total.value:.2f}"
            yield Finding(str(table), str(dataset), str(row), "total", note, IMPOSSIBLE, total.value, value, parts)


def _sum(numbers: Mapping[str, Printed]) -> Interval:
    intervals = [number.interval for number in numbers.values()]
    return Interval(math.fsum(i.low for i in intervals), math.fsum(i.high for i in intervals))
