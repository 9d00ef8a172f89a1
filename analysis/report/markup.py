"""HTML of tables, sections and links to runs. Whatever comes from records is escaped here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote, urlsplit

from analysis.escape import clean
from trainables.errors import ConfigError

MLFLOW_URL = "http://127.0.0.1:5000"
"""Where ``mlflow server`` listens by default."""

_TRAINING = "workflowType=machine_learning"
"""Without it MLflow's UI shows a run among the pages of its other half, for language models."""

_DIRECTIONS = {"up": ("↑", "higher is better"), "down": ("↓", "lower is better")}


def safe(text: object) -> str:
    """One line of text as HTML."""
    return escape(clean(str(text)))


def hidden(text: str) -> str:
    """Text for screen readers alone; ``text`` is HTML."""
    return f'<span class="vh">{text}</span>'


class RunLinks:
    """Links into the MLflow UI.

    Args:
        base: where it is served, ``http://HOST:PORT``, perhaps with a path.

    Raises:
        ConfigError: ``base`` is no such address.
    """

    def __init__(self, base: str = MLFLOW_URL) -> None:
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise ConfigError(f"MLflow address '{base}' is not allowed (allowed: http://HOST:PORT, like {MLFLOW_URL})")
        self.base = base.rstrip("/")

    def link(self, runs: Iterable[tuple[str, str]], html: str) -> str:
        """``html`` as a link to one run, or to MLflow's comparison of several; as it is where there is none.

        Args:
            runs: experiment id and run id of each.
            html: what is shown.
        """
        found = [(experiment, run) for experiment, run in dict.fromkeys(runs) if run]
        if not found:
            return html
        ids = [run for _, run in found]
        if len(found) == 1:
            place = f"#/experiments/{quote(found[0][0], safe='')}/runs/{quote(ids[0], safe='')}?{_TRAINING}"
            title = f"MLflow run {ids[0]}"
        else:
            experiments = list(dict.fromkeys(experiment for experiment, _ in found))
            place = f"#/compare-runs?runs={_listed(ids)}&experiments={_listed(experiments)}&{_TRAINING}"
            title = f"{len(ids)} MLflow runs: {', '.join(ids[:3])}{', …' if len(ids) > 3 else ''}"
        return f'<a class="run" href="{escape(self.base)}/{escape(place)}" title="{safe(title)}">{html}</a>'


def _listed(ids: Sequence[str]) -> str:
    return quote(json.dumps(ids, separators=(",", ":")), safe="")


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        html: what it shows.
        key: what its column is sorted by: a number (NaN goes last), or the text itself for ``None``.
        kind: its class; empty for none.
    """

    html: str
    key: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Head:
    """The head of a column.

    Attributes:
        text: not escaped yet.
        direction: ``up``, ``down`` or empty.
        words: whether its cells are words, which begin at the left, and not numbers.
    """

    text: str
    direction: str = ""
    words: bool = False


def words(text: object) -> Cell:
    """A cell of text."""
    return Cell(safe(text))


def table(
    name: str,
    caption: str,
    heads: Sequence[Head],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    *,
    tools: str = "",
    searched: bool = False,
) -> str:
    """A table whose columns sort when their heads are pressed; its first column names the rows.

    Args:
        name: its id in the page.
        caption: one line, not escaped yet.
        heads: of the columns.
        rows: class (perhaps empty) and cells, the first of which is the row's head.
        tools: HTML of what else stands over it.
        searched: whether to offer a box to filter rows by.
    """
    top = "".join(_head(head) for head in heads)
    lines = "\n".join(_row(kind, cells, heads) for kind, cells in rows)
    box = (
        f'<label>Filter rows <input type="search" class="filter" data-table="{name}" autocomplete="off"></label>'
        if searched
        else ""
    )
    bar = f'<div class="tools">{box}{tools}<span class="count" role="status"></span></div>' if box or tools else ""
    return (
        f'{bar}<div class="wide" tabindex="0" role="region" aria-labelledby="{name}-caption">'
        f'<table id="{name}"><caption id="{name}-caption">{safe(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>"
    )


def _head(head: Head) -> str:
    mark, said = _DIRECTIONS.get(head.direction, ("", ""))
    arrow = f' <span aria-hidden="true">{mark}</span>{hidden(f", {said}")}' if mark else ""
    kind = ' class="words"' if head.words else ""
    return f'<th scope="col"{kind}><button type="button" class="sort">{safe(head.text)}{arrow}</button></th>'


def _row(kind: str, cells: Sequence[Cell], heads: Sequence[Head]) -> str:
    parts = []
    for place, (cell, head) in enumerate(zip(cells, heads, strict=True)):
        kinds = " ".join(part for part in (cell.kind, "words" if head.words else "") if part)
        attributes = f' class="{kinds}"' if kinds else ""
        if cell.key is not None:
            attributes += f' data-key="{cell.key:.9g}"' if math.isfinite(cell.key) else ' data-key=""'
        parts.append(
            f'<th scope="row"{attributes}>{cell.html}</th>' if place == 0 else f"<td{attributes}>{cell.html}</td>"
        )
    return f"<tr{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{''.join(parts)}</tr>"


def section(name: str, title: str, parts: Iterable[str]) -> str:
    """A section of the page, with an id to link to; ``title`` is not escaped yet, ``parts`` are HTML."""
    body = "\n".join(part for part in parts if part)
    head = f'<h2 id="{name}-title">{safe(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">{head}\n{body}\n</section>'


def details(summary: str, html: str, *, open_: bool = False) -> str:
    """Something to unfold; ``summary`` is not escaped yet."""
    return f"<details{' open' if open_ else ''}><summary>{safe(summary)}</summary>\n{html}\n</details>"


def notes(lines: Iterable[str], kind: str = "ul") -> str:
    """A list of small print; not escaped yet."""
    items = "".join(f"<li>{safe(line)}</li>" for line in lines)
    return f'<{kind} class="notes">{items}</{kind}>' if items else ""
