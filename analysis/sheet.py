"""A table made ready to be shown: numbers as text, best and second best found, columns that say nothing left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import pandas as pd

from analysis.escape import DASH, clean
from analysis.tables import columns as c

_SIGNIFICANT = 4
_MOST_DECIMALS = 6


class Rank(Enum):
    """A cell's place in its column among the rows compared (the baseline is not)."""

    BEST = "best"
    SECOND = "second"
    OTHER = "other"


@dataclass(frozen=True)
class Cell:
    """What a cell shows: the number, its spread (empty for none), its place in the column."""

    text: str
    spread: str = ""
    rank: Rank = Rank.OTHER


@dataclass(frozen=True)
class Column:
    """A column as shown.

    Attributes:
        header: without the direction.
        direction: ``up``, ``down`` or empty.
        role: see :mod:`analysis.tables.columns`.
        cells: one per row.
    """

    header: str
    direction: str
    role: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Sheet:
    """A table as shown.

    Attributes:
        title: one line.
        labels: one per row.
        marks: one per row: the number of its note, 0 for none.
        columns: tasks first.
        notes: ``label: what is missing and why``, the first has number 1.
        footnotes: in order.
    """

    title: str
    labels: tuple[str, ...]
    marks: tuple[int, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...]
    footnotes: tuple[str, ...]


def sheet_of(table: pd.DataFrame) -> Sheet:
    """Lay out a table made by :mod:`analysis.tables`.

    Task values have one number of decimals per column, chosen so that the largest shows four significant digits. Best
    and second best are told apart as shown: rows with the same text share a place.
    """
    labels = tuple(clean(str(label)) for label in table.index)
    compared = [label != table.attrs["baseline"] for label in table.index]
    columns = []
    for entry in table.attrs["columns"]:
        values = table[entry["name"]].tolist()
        match entry["role"]:
            case c.TASK:
                texts = _fixed(values)
            case c.DELTA_M | c.VALIDATION | c.PUBLISHED | c.PUBLISHED_RECOMPUTED:
                texts = [_percent(value) for value in values]
            case c.GROUPS | c.SECONDS:
                texts = [short_number(value) for value in values]
            case c.N | c.TRUNK_PASSES:
                texts = [DASH if math.isnan(value) else f"{value:,.0f}" for value in values]
            case _:
                continue
        optional = entry["role"] in (c.PUBLISHED, c.PUBLISHED_RECOMPUTED, c.GROUPS, c.VALIDATION)
        if optional and set(texts) == {DASH}:
            continue
        ranks = _ranks(values, texts, compared, entry["direction"])
        spread = table[entry["spread"]].tolist() if entry["spread"] else [math.nan] * len(values)
        spreads = ["" if math.isnan(sd) else f"{sd:.2f}" for sd in spread]
        cells = tuple(Cell(text, sd, rank) for text, sd, rank in zip(texts, spreads, ranks, strict=True))
        columns.append(Column(clean(entry["header"]), entry["direction"], entry["role"], cells))
    marks, notes = _notes(labels, table[c.NOTE].tolist())
    return Sheet(
        title=clean(table.attrs["title"]),
        labels=labels,
        marks=marks,
        columns=tuple(columns),
        notes=notes,
        footnotes=tuple(clean(note) for note in table.attrs["footnotes"]),
    )


def _fixed(values: Sequence[float]) -> list[str]:
    """One number of decimals for all, from the largest; a column of tiny numbers goes to scientific notation."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    decimals = _SIGNIFICANT - 1 - math.floor(math.log10(largest)) if largest > 0 else 0
    style = f".{_SIGNIFICANT - 1}e" if decimals > _MOST_DECIMALS else f".{max(decimals, 0)}f"
    return [format(value, style) if math.isfinite(value) else DASH for value in values]


def _percent(value: float) -> str:
    if not math.isfinite(value):
        return DASH
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text


def short_number(value: float) -> str:
    """Three significant digits, whole numbers from 100 on, a dash for no number."""
    if not math.isfinite(value):
        return DASH
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _ranks(values: Sequence[float], texts: Sequence[str], compared: Sequence[bool], direction: str) -> list[Rank]:
    ranks = [Rank.OTHER] * len(values)
    rows = [row for row, value in enumerate(values) if compared[row] and math.isfinite(value)] if direction else []
    if len(rows) < 2:
        return ranks
    rows.sort(key=lambda row: values[row], reverse=direction == "up")
    places = list(dict.fromkeys(texts[row] for row in rows))
    if len(places) < 2:
        return ranks
    for row in rows:
        ranks[row] = {places[0]: Rank.BEST, places[1]: Rank.SECOND}.get(texts[row], Rank.OTHER)
    return ranks


def _notes(labels: Sequence[str], notes: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    marks, shown = [], []
    for label, note in zip(labels, notes, strict=True):
        if note:
            shown.append(clean(f"{label}: {note}"))
        marks.append(len(shown) if note else 0)
    return tuple(marks), tuple(shown)
