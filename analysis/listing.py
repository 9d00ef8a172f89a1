"""Data frames that are lists of findings rather than tables of results: some columns numbers, some of them sentences.

A listing is a frame with ``attrs["listing"]`` set, as :func:`listing` makes it; :func:`analysis.render.render` shows it
in every format it has.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd

from analysis.escape import DASH, clean, escape_latex, escape_markdown

_KEY = "listing"
WIDTH = 160
"""Columns of a terminal that text keeps to."""

_NARROWEST = 14
_LONG = 30
"""Characters from which a column of words gets a share of a page's width."""

_GAP = "  "


def listing(
    lines: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    name: str,
    title: str,
    shown: Mapping[str, tuple[str, str]],
    footnotes: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """A frame to be rendered as it is.

    Args:
        lines: one mapping per row.
        columns: of the frame, in order; CSV and JSON hold all of them.
        name: one word, in labels of LaTeX.
        title: one line.
        shown: column to header and format, of the columns text, Markdown and LaTeX show. A format is a format
            specification for numbers (``+.2f``), or empty for words.
        footnotes: in order, without a full stop.
        about: what else ``attrs`` and JSON are to say.
    """
    frame = pd.DataFrame(list(lines), columns=list(columns))
    entries = [{"name": column, "header": header, "format": spec} for column, (header, spec) in shown.items()]
    frame.attrs = {_KEY: name, "title": title}
    frame.attrs.update(about or {})
    frame.attrs.update({"columns": entries, "footnotes": list(footnotes)})
    return frame


def is_listing(frame: pd.DataFrame) -> bool:
    """Whether :func:`listing` made it."""
    return _KEY in frame.attrs


def _cells(frame: pd.DataFrame) -> list[list[str]]:
    """What is shown, header aside, row by row."""
    columns = [[_shown(value, entry["format"]) for value in frame[entry["name"]]] for entry in frame.attrs["columns"]]
    return [list(row) for row in zip(*columns, strict=True)]


def _shown(value: Any, spec: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return DASH
    return format(value, spec) if spec else clean(str(value))


def _text(frame: pd.DataFrame) -> str:
    headers = [entry["header"] for entry in frame.attrs["columns"]]
    words = [not entry["format"] for entry in frame.attrs["columns"]]
    rows = _cells(frame)
    widths = _widths([headers, *rows], words)
    lines = [frame.attrs["title"], "", *_wrapped(headers, widths, words), "-" * (sum(widths) + 2 * (len(widths) - 1))]
    for row in rows:
        lines += _wrapped(row, widths, words)
    lines.append("")
    for note in frame.attrs["footnotes"]:
        lines += textwrap.wrap(f"{clean(note)}.", WIDTH, subsequent_indent="    ")
    return "\n".join(lines).rstrip() + "\n"


def _widths(rows: Sequence[Sequence[str]], words: Sequence[bool]) -> list[int]:
    """Natural widths, the widest column of words made narrower until the line fits."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(words))]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > WIDTH:
        widest = max((place for place, is_words in enumerate(words) if is_words), key=lambda place: widths[place])
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    return widths


def _wrapped(row: Sequence[str], widths: Sequence[int], words: Sequence[bool]) -> list[str]:
    cells = [
        textwrap.wrap(text, width, break_on_hyphens=False) or [""] for text, width in zip(row, widths, strict=True)
    ]
    lines = []
    for line in range(max(map(len, cells))):
        parts = [cell[line] if line < len(cell) else "" for cell in cells]
        shown = [
            part.ljust(width) if is_words else part.rjust(width)
            for part, width, is_words in zip(parts, widths, words, strict=True)
        ]
        lines.append(_GAP.join(shown).rstrip())
    return lines


def _markdown(frame: pd.DataFrame) -> str:
    entries = frame.attrs["columns"]
    lines = [
        f"**{escape_markdown(frame.attrs['title'])}**",
        "",
        "| " + " | ".join(escape_markdown(entry["header"]) for entry in entries) + " |",
        "|" + "".join("---:|" if entry["format"] else "---|" for entry in entries),
        *("| " + " | ".join(map(escape_markdown, row)) + " |" for row in _cells(frame)),
        "",
        *(f"- {escape_markdown(clean(note))}." for note in frame.attrs["footnotes"]),
    ]
    return "\n".join(lines) + "\n"


def _latex(frame: pd.DataFrame) -> str:
    """A ``longtable`` whose columns of sentences share the width: a listing may be longer than a page."""
    entries = frame.attrs["columns"]
    rows = _cells(frame)
    longest = [max((len(row[place]) for row in rows), default=0) for place in range(len(entries))]
    share = 0.5 / max(sum(length > _LONG for length in longest), 1)
    kinds = "".join(
        "r" if entry["format"] else rf"p{{{share:.3f}\linewidth}}" if length > _LONG else "l"
        for entry, length in zip(entries, longest, strict=True)
    )
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,longtable}",
            r"{\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\begin{{longtable}}{{{kinds}}}",
            rf"\caption{{{escape_latex(frame.attrs['title'])}}}",
            rf"\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', frame.attrs[_KEY])}}}\\",
            r"\toprule",
            " & ".join(escape_latex(entry["header"]) for entry in entries) + r" \\",
            r"\midrule",
            r"\endhead",
            *(" & ".join(map(_latex_cell, row)) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{longtable}",
            *(rf"\noindent {escape_latex(clean(note))}.\par" for note in frame.attrs["footnotes"]),
            "}",
            "",
        ]
    )


def _latex_cell(text: str) -> str:
    """A number with its sign in mathematics, words escaped; a line must not begin with the bracket of ``\\\\[``."""
    if re.fullmatch(r"[+-]?[\d.]+", text):
        return f"${text}$"
    return ("{}" if text.startswith(("[", "*")) else "") + escape_latex(text)


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")


def _json(frame: pd.DataFrame) -> str:
    about = {name: value for name, value in frame.attrs.items() if name != _KEY}
    rows = [{str(name): _plain(value) for name, value in line.items()} for line in frame.to_dict("records")]
    return json.dumps({**about, "rows": rows}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


LISTING_FORMATS: Mapping[str, Callable[[pd.DataFrame], str]] = MappingProxyType(
    {"text": _text, "markdown": _markdown, "latex": _latex, "csv": _csv, "json": _json}
)
"""By the names of :data:`analysis.render.FORMATS`."""
