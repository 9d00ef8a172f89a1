"""A study as one self-contained HTML page: table, chart, costs, where the numbers come from, how to make them again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import pandas as pd

from analysis.chart import STYLE, delta_m_chart
from analysis.escape import clean
from analysis.files import write_whole
from analysis.listing import is_listing
from analysis.records import Records
from analysis.render import header
from analysis.sheet import Cell, Rank, sheet_of, short_number
from analysis.tables import make_table, rows_table
from analysis.tables.results import row_results
from study import schema

_PAGE = """<!doctype html>
<html lang="en"> <head> <meta charset="utf-8"> <meta http-equiv="Content-Security-Policy" content="default-src 'none';
style-src 'unsafe-inline'"> <meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title> <style> :root {{ color-scheme: light dark; --page: #ffffff; --ink: #1b1f24; --muted: #57606a;
--faint: #d8dee4; --bar: #0072b2; --mark: #d55e00; }} @media (prefers-color-scheme: dark) {{
  :root {{ --page: #14171b; --ink: #e6e8eb; --muted: #9aa4af; --faint: #363c44; --bar: #56b4e9; --mark: #e69f00; }}
}} body {{ max-width: 75rem; margin: 2rem auto; padding: 0 1rem; background: var(--page); color: var(--ink); font:
15px/1.5 system-ui, sans-serif; }} h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }} .wide
{{ overflow-x: auto; }} table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }}
th, td {{ padding: .25rem .55rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--faint); }}
th:first-child, td:first-child {{ text-align: left; }} .best {{ font-weight: 700; }} .second {{ text-decoration:
underline; }} .words td {{ text-align: left; }} .words td:last-child {{ white-space: normal; overflow-wrap: anywhere;
}} .notes, .notes li {{ color: var(--muted); font-size: 13px; }} pre {{ padding: .7rem 1rem; border: 1px solid
var(--faint); overflow-x: auto; }} {chart_style}</style> </head> <body> {body} </body> </html>
"""

_LEGEND = (
    "Bold: best of its column; underlined: second best, the baseline aside. ↑ higher is better, ↓ lower is better."
)

_PROVENANCE = (
    ("data", schema.DATA),
    ("data fingerprint", schema.DATA_FINGERPRINT),
    ("backbone", schema.BACKBONE),
    ("device", schema.DEVICE),
    ("executor", schema.EXECUTOR),
    ("commit", schema.GIT_COMMIT),
    ("uncommitted changes", schema.GIT_DIRTY),
    ("result version", schema.RESULT_VERSION),
)


def write_report(records: Records, path: Path) -> Path:
    """Write the page to ``path``, whose folder is made where needed, and return it.

    The page loads nothing from anywhere and is replaced in one step, so that a reader never sees half of it.

    Raises:
        StoreError: it cannot be written.
    """
    return write_whole(path, report_html(records).encode(), "report")


def report_html(records: Records) -> str:
    """The page. Everything that comes from the records is escaped."""
    table = make_table(records)
    if is_listing(table):  # of costs, say; the page shows those beside the results anyway
        table = rows_table(records)
    plan = records.plan
    done = int((records.trials["status"] == schema.COMPLETE).sum())
    seeds = f"{len(plan.seeds)} seed{'' if len(plan.seeds) == 1 else 's'}"
    chart = delta_m_chart(table)
    body = [
        f"<h1>{_safe(plan.title)}</h1>",
        f"<p>Study <code>{_safe(plan.study)}</code>, profile <code>{_safe(plan.profile)}</code>, {seeds}, "
        f"{done} of {len(records.trials)} trials complete.</p>",
        "<h2>Results</h2>",
        _results(table),
        *(["<h2>Delta_m</h2>", chart] if chart else []),
        "<h2>Costs of a seed</h2>",
        _costs(records),
        "<h2>Where the numbers come from</h2>",
        _provenance(records),
        "<h2>Make them again</h2>",
        f"<pre>mtl-study run {_safe(plan.study)} --profile {_safe(plan.profile)}</pre>",
        "<p>What is finished is not trained again; what was interrupted is resumed.</p>",
        "<h2>Trials</h2>",
        _trials(records),
    ]
    return _PAGE.format(title=_safe(plan.title), chart_style=STYLE, body="\n".join(body))


def _safe(text: object) -> str:
    return escape(clean(str(text)))


def _results(table: pd.DataFrame) -> str:
    sheet = sheet_of(table)

    def cell(shown: Cell) -> str:
        text = escape(shown.text) + (f" ± {escape(shown.spread)}" if shown.spread else "")
        return f"<td>{text}</td>" if shown.rank is Rank.OTHER else f'<td class="{shown.rank.value}">{text}</td>'

    head = "".join(f"<th>{escape(header(column))}</th>" for column in sheet.columns)
    lines = []
    for index, (label, mark) in enumerate(zip(sheet.labels, sheet.marks, strict=True)):
        note = f"<sup>{mark}</sup>" if mark else ""
        cells = "".join(cell(column.cells[index]) for column in sheet.columns)
        lines.append(f"<tr><td>{escape(label)}{note}</td>{cells}</tr>")
    notes = "".join(f"<li>{escape(note)}</li>" for note in sheet.notes)
    footnotes = "".join(f"<li>{escape(note)}.</li>" for note in sheet.footnotes)
    return "\n".join(
        [
            f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>',
            *lines,
            "</tbody></table></div>",
            *([f'<ol class="notes">{notes}</ol>'] if notes else []),
            f'<ul class="notes">{footnotes}<li>{_LEGEND}</li></ul>',
        ]
    )


def _costs(records: Records) -> str:
    results = row_results(records).values()
    rows = [[result.row.label, *(short_number(result.costs[name]) for name in schema.COSTS)] for result in results]
    return _table(["", *(name.replace("_", " ") for name in schema.COSTS)], rows)


def _provenance(records: Records) -> str:
    complete = records.trials[records.trials["status"] == schema.COMPLETE]
    rows = [[name, ", ".join(_distinct(complete[tag])) or "unknown"] for name, tag in _PROVENANCE]
    rows.append(["versions", _versions(complete[schema.VERSIONS])])
    return _table(["", ""], rows, "words")


def _versions(tags: Iterable[str]) -> str:
    found: dict[str, list[str]] = {}
    for tag in _distinct(tags):
        try:
            packages = json.loads(tag)
        except json.JSONDecodeError:
            continue
        for name, version in packages.items() if isinstance(packages, dict) else ():
            if str(version) not in found.setdefault(str(name), []):
                found[str(name)].append(str(version))
    return ", ".join(f"{name} {' and '.join(versions)}" for name, versions in found.items()) or "unknown"


def _trials(records: Records) -> str:
    rows = [
        [label, seed, ", ".join(tasks) if len(tasks) == 1 else "all", status, trial_key[:12], run_id]
        for label, seed, tasks, status, trial_key, run_id in records.trials[
            ["label", "seed", "tasks", "status", "trial_key", "run_id"]
        ].itertuples(index=False, name=None)
    ]
    shown = _table(["row", "seed", "tasks", "status", "trial key", "MLflow run"], rows, "words")
    return f"<details><summary>{len(rows)} trials and their runs</summary>{shown}</details>"


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))


def _table(head: Sequence[object], rows: Iterable[Sequence[object]], kind: str = "numbers") -> str:
    lines = ["".join(f"<td>{_safe(value)}</td>" for value in row) for row in rows]
    top = "".join(f"<th>{_safe(value)}</th>" for value in head)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    )
