"""The published tables as printed: every number with the digits it was printed to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import pandas as pd

from analysis.reference import SINGLE_TASK
from analysis.rounding import Printed, decimals


@dataclass(frozen=True)
class PrintedRow:
    """One row of a published table.

    Attributes:
        table: ``2``, ``D.5``, ``4:grouping``, ...
        dataset: it was measured on.
        backbone: empty where the paper does not name it.
        row: as the paper names it.
        delta_m: in percent; None for a dash.
        spread: its "±"; None where none is printed.
        tasks: task to its number, None for a dash; empty where the table prints no task numbers.
    """

    table: str
    dataset: str
    backbone: str
    row: str
    delta_m: Printed | None
    spread: Printed | None
    tasks: Mapping[str, Printed | None]

    @property
    def numbers(self) -> dict[str, Printed] | None:
        """Task to number where every task has one, None otherwise."""
        found = {task: number for task, number in self.tasks.items() if number is not None}
        return found if found and len(found) == len(self.tasks) else None


@cache
def printed_rows() -> tuple[PrintedRow, ...]:
    """Every row of every published table, in the paper's order.

    A spreadsheet of numbers loses the zeros at their ends (``0.0160`` is kept as ``0.016``). The paper gives a column
    one number of decimals, so each number has as many as the longest one of its task in its table (its Delta_m as the
    longest of the table's, its spread likewise).
    """
    rows = read_text("delta_m.csv")
    metrics = read_text("task_metrics.csv")
    per_task = _longest(metrics, ["table", "dataset", "task"], "value")
    gains, spreads = (_longest(rows, ["table", "dataset"], name) for name in ("delta_m_percent", "delta_m_spread"))
    tasks: dict[tuple[str, ...], dict[str, Printed | None]] = {}
    for table, dataset, row, task, value in metrics[["table", "dataset", "row", "task", "value"]].itertuples(
        index=False, name=None
    ):
        tasks.setdefault((table, dataset, row), {})[task] = _printed(value, per_task[table, dataset, task])
    names = ["table", "dataset", "backbone", "row", "delta_m_percent", "delta_m_spread"]
    return tuple(
        PrintedRow(
            table,
            dataset,
            backbone,
            row,
            _printed(gain, gains[table, dataset]),
            _printed(spread, spreads[table, dataset]),
            MappingProxyType(tasks.get((table, dataset, row), {})),
        )
        for table, dataset, backbone, row, gain, spread in rows[names].itertuples(index=False, name=None)
    )


def base_of(row: PrintedRow) -> PrintedRow | None:
    """The single-task row Delta_m is taken against.

    The table's own for the data set; where it has none, the first one printed for the same data set and backbone.
    """
    same = [
        other
        for other in printed_rows()
        if other.row == SINGLE_TASK and (other.dataset, other.backbone) == (row.dataset, row.backbone)
    ]
    return next((other for other in same if other.table == row.table), same[0] if same else None)


@cache
def higher_is_better() -> Mapping[tuple[str, str], bool]:
    """Data set and task to the direction of its metric."""
    lines = read_text("task_metrics.csv")[["dataset", "task", "better"]].itertuples(index=False, name=None)
    return MappingProxyType({(dataset, task): better == "higher" for dataset, task, better in lines})


def read_text(name: str) -> pd.DataFrame:
    """A table of ``published/`` with every value as its text."""
    with files("analysis").joinpath("published", name).open("rb") as file:
        return pd.read_csv(file, dtype="str", keep_default_na=False)


def _longest(frame: pd.DataFrame, keys: list[str], column: str) -> dict[tuple[str, ...], int]:
    longest: dict[tuple[str, ...], int] = {}
    for *key, text in frame[[*keys, column]].itertuples(index=False, name=None):
        longest[tuple(key)] = max(longest.get(tuple(key), 0), decimals(text))
    return longest


def _printed(text: str, places: int) -> Printed | None:
    return Printed(float(text), places) if text else None
