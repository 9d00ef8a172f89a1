"""A table as text, Markdown, LaTeX, CSV or JSON."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd

from analysis.escape import escape_latex, escape_markdown
from analysis.listing import LISTING_FORMATS, WIDTH, is_listing
from analysis.sheet import Cell, Column, Rank, Sheet, sheet_of
from analysis.tables import columns as c
from trainables.errors import ConfigError, unknown

_ARROWS = {"up": "↑", "down": "↓", "": ""}
_GAP = "  "
_MOST_LATEX_COLUMNS = 10
_COMPARED = ", the baseline aside; ↑ higher is better, ↓ lower is better."


def render(table: pd.DataFrame, format: str = "text") -> str:
    """A table made by :mod:`analysis.tables`, or a listing, as a string without a newline at its end.

    A listing (:func:`analysis.listing.listing`) has its columns as they are, without marks for best values.

    ``text`` keeps to :data:`WIDTH` columns: a wider table is shown as its summary first and its tasks below.
    ``markdown`` is a GitHub table. ``latex`` is a complete ``table`` environment that needs the package ``booktabs``,
    and ``graphicx`` for a table wider than a page. ``csv`` and ``json`` hold every column at full precision; ``json``
    the title, directions and footnotes too, NaN as null.

    Best values are marked with ``*`` in text and bold in Markdown and LaTeX; LaTeX underlines the second best. The
    baseline row is not compared.

    Raises:
        ConfigError: no such format.
    """
    if format not in FORMATS:
        raise ConfigError(unknown("format", format, FORMATS))
    formats = LISTING_FORMATS if is_listing(table) else FORMATS
    return formats[format](table).rstrip("\n")


def header(column: Column) -> str:
    """A column's header with its direction: ``De ↓``."""
    return f"{column.header} {_ARROWS[column.direction]}".strip()


def _text(table: pd.DataFrame) -> str:
    sheet = sheet_of(table)
    lines = [sheet.title, ""]
    for block in _blocks(sheet):
        lines += [*_grid(sheet, block), ""]
    under = [f"({number}) {note}" for number, note in enumerate(sheet.notes, 1)]
    under += [f"{note}." for note in sheet.footnotes]
    if _any_best(sheet):
        under.append(f"* best of its column{_COMPARED}")
    for note in under:
        lines += textwrap.wrap(note, WIDTH, subsequent_indent="    ")
    return "\n".join(lines).rstrip() + "\n"


def _blocks(sheet: Sheet) -> list[list[Column]]:
    """All columns at once where they fit, else the summary and then the tasks, each broken where it must be."""
    columns = list(sheet.columns)
    if _width(sheet, columns) <= WIDTH:
        return [columns]
    blocks: list[list[Column]] = []
    for is_task in (False, True):
        block: list[Column] = []
        for column in columns:
            if (column.role == c.TASK) != is_task:
                continue
            if block and _width(sheet, [*block, column]) > WIDTH:
                blocks.append(block)
                block = []
            block.append(column)
        blocks += [block] if block else []
    return blocks


def _width(sheet: Sheet, columns: Sequence[Column]) -> int:
    return max(len(line) for line in _grid(sheet, columns))


def _grid(sheet: Sheet, columns: Sequence[Column]) -> list[str]:
    rows = [["", *map(header, columns)]]
    for index, label in enumerate(_marked(sheet)):
        rows.append([label, *(_starred(column, column.cells[index]) for column in columns)])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        _GAP.join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return [lines[0].rstrip(), "-" * max(len(line) for line in lines), *(line.rstrip() for line in lines[1:])]


def _starred(column: Column, cell: Cell) -> str:
    """A column with a best value or a spread keeps room for them in every cell, so that its digits line up."""
    star = "*" if cell.rank is Rank.BEST else " " * _stars(column)
    widest = max((len(other.spread) for other in column.cells), default=0)
    spread = f" ± {cell.spread:>{widest}}" if cell.spread else " " * (widest + 3 if widest else 0)
    return cell.text + star + spread


def _stars(column: Column) -> int:
    return int(any(cell.rank is Rank.BEST for cell in column.cells))


def _with_spread(cell: Cell) -> str:
    return f"{cell.text} ± {cell.spread}" if cell.spread else cell.text


def _any_best(sheet: Sheet) -> bool:
    return any(cell.rank is Rank.BEST for column in sheet.columns for cell in column.cells)


def _marked(sheet: Sheet) -> Iterable[str]:
    return (f"{label} ({mark})" if mark else label for label, mark in zip(sheet.labels, sheet.marks, strict=True))


def _markdown(table: pd.DataFrame) -> str:
    sheet = sheet_of(table)

    def shown(cell: Cell) -> str:
        text = escape_markdown(_with_spread(cell))
        return f"**{text}**" if cell.rank is Rank.BEST else text

    lines = [f"**{escape_markdown(sheet.title)}**", ""]
    lines.append("| | " + " | ".join(escape_markdown(header(column)) for column in sheet.columns) + " |")
    lines.append("|---|" + "---:|" * len(sheet.columns))
    for index, label in enumerate(_marked(sheet)):
        lines.append(
            f"| {escape_markdown(label)} | " + " | ".join(shown(column.cells[index]) for column in sheet.columns) + " |"
        )
    lines.append("")
    lines += [f"- ({number}) {escape_markdown(note)}" for number, note in enumerate(sheet.notes, 1)]
    lines += [f"- {escape_markdown(note)}." for note in sheet.footnotes]
    lines += [f"- Bold: best of its column{_COMPARED}"] * _any_best(sheet)
    return "\n".join(lines) + "\n"


def _latex(table: pd.DataFrame) -> str:
    sheet = sheet_of(table)

    def number(cell: Cell) -> str:
        if not cell.spread and not any(char.isdigit() for char in cell.text):
            return "--"
        text = cell.text.replace(",", "{,}")
        if cell.rank is Rank.BEST:
            text = rf"\mathbf{{{text}}}"
        elif cell.rank is Rank.SECOND:
            text = rf"\underline{{{text}}}"
        return f"${text} \\pm {cell.spread}$" if cell.spread else f"${text}$"

    def heading(column: Column) -> str:
        text = escape_latex(header(column))
        return text.replace("Delta\\_m", r"$\Delta_m$") if column.role == c.DELTA_M else text

    rows = []
    for index, (label, mark) in enumerate(zip(sheet.labels, sheet.marks, strict=True)):
        note = rf"\textsuperscript{{{mark}}}" if mark else ""
        rows.append(
            " & ".join([escape_latex(label) + note, *(number(column.cells[index]) for column in sheet.columns)])
            + r" \\"
        )
    notes = [rf"\textsuperscript{{{place}}}{escape_latex(note)}." for place, note in enumerate(sheet.notes, 1)]
    notes += [f"{escape_latex(note)}." for note in sheet.footnotes]
    notes += [f"Bold: best of its column, underlined: second best{escape_latex(_COMPARED)}"] * _any_best(sheet)
    notes = [note.replace("Delta\\_m", r"$\Delta_m$") for note in notes]
    wide = len(sheet.columns) > _MOST_LATEX_COLUMNS
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}" + (r" and \usepackage{graphicx}" if wide else ""),
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{escape_latex(sheet.title)}}}",
            rf"\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', str(table.attrs['study']))}}}",
            r"\scriptsize",
            r"\setlength{\tabcolsep}{3pt}",
            *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
            rf"\begin{{tabular}}{{l{'r' * len(sheet.columns)}}}",
            r"\toprule",
            " & ".join(["", *(heading(column) for column in sheet.columns)]) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}" + ("}" if wide else ""),
            *(["", r"\smallskip", r"\raggedright", *(rf"{note}\par" for note in notes)] if notes else []),
            r"\end{table}",
            "",
        ]
    )


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(lineterminator="\n")


def _json(table: pd.DataFrame) -> str:
    rows = [
        {"id": row_id, "label": label, **{name: _plain(value) for name, value in zip(table.columns, line, strict=True)}}
        for row_id, label, line in zip(
            table.attrs["row_ids"], table.index, table.itertuples(index=False, name=None), strict=True
        )
    ]
    about = {name: table.attrs[name] for name in ("title", "study", "profile", "baseline", "columns", "footnotes")}
    return json.dumps({**about, "rows": rows}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


FORMATS: Mapping[str, Callable[[pd.DataFrame], str]] = MappingProxyType(
    {"text": _text, "markdown": _markdown, "latex": _latex, "csv": _csv, "json": _json}
)
