"""The page as a whole: what was asked, the sections in order, style and script."""

from __future__ import annotations

import base64
import hashlib
import math
from importlib.resources import files
from pathlib import Path

import pandas as pd

from analysis.chart import STYLE
from analysis.files import write_whole
from analysis.listing import is_listing
from analysis.plan import Plan
from analysis.records import Records
from analysis.report.cost import cost_section, total_hours
from analysis.report.curves import curves_section
from analysis.report.grouping import grouping_section
from analysis.report.markup import RunLinks, safe, section
from analysis.report.provenance import failures_section, reproduce_section
from analysis.report.results import results_section
from analysis.report.tasks import tasks_section
from analysis.report.verdicts import claims_section
from analysis.tables import columns as c
from analysis.tables import make_table, rows_table
from study import schema


def write_report(
    records: Records, path: Path, *, verdicts: pd.DataFrame | None = None, links: RunLinks | None = None
) -> Path:
    """Write the page to ``path``, whose folder is made where needed, and return it. Arguments as of
    :func:`report_html`.

    The page is replaced in one step, so that a reader never sees half of it.

    Raises:
        StoreError: it cannot be written.
    """
    return write_whole(path, report_html(records, verdicts=verdicts, links=links).encode(), "report")


def report_html(records: Records, *, verdicts: pd.DataFrame | None = None, links: RunLinks | None = None) -> str:
    """The page. It loads nothing from anywhere, and everything that comes from the records is escaped.

    A section whose records do not exist is left out. The page's security policy allows the one script it comes with,
    by its hash, and no other.

    Args:
        records: of the study.
        verdicts: of :func:`analysis.claims.claims`, at the study's profile; without them there is no section of
            claims.
        links: to the MLflow UI.
    """
    links = links or RunLinks()
    frame = rows_table(records)
    table = make_table(records)
    if is_listing(table):  # of costs, say; the page shows those beside the results anyway
        table = frame
    sections = [
        _question(records, frame),
        results_section(records, table, links),
        tasks_section(records),
        curves_section(records),
        grouping_section(records),
        cost_section(records, frame, links),
        claims_section(records, verdicts),
        failures_section(records, links),
        reproduce_section(records, links),
    ]
    shown = [part for part in sections if part]
    style, script = (_resource(name) for name in ("style.css", "script.js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    title = safe(records.plan.title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{allowed}'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}{STYLE}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#results">Skip to the results</a>\n'
        f"<header><h1>{title}</h1>\n{_standing(records)}</header>\n{_contents(shown)}\n"
        f"<main>\n{chr(10).join(shown)}\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _resource(name: str) -> str:
    return files("analysis.report").joinpath(name).read_text(encoding="utf-8")


def _standing(records: Records) -> str:
    plan = records.plan
    done = int((records.trials["status"] == schema.COMPLETE).sum())
    seeds = f"{len(plan.seeds)} seed{'' if len(plan.seeds) == 1 else 's'}"
    return (
        f"<p>Study <code>{safe(plan.study)}</code>, profile <code>{safe(plan.profile)}</code>, {seeds}, "
        f"{done} of {len(records.trials)} trials complete.</p>\n"
    )


def _contents(shown: list[str]) -> str:
    """Links to the sections there are, by the id and title each begins with."""
    items = []
    for part in shown:
        name = part.partition('id="')[2].partition('"')[0]
        title = part.partition("<h2")[2].partition(">")[2].partition("</h2>")[0]
        items.append(f'<li><a href="#{name}">{title}</a></li>')
    return f'<nav aria-label="Contents"><ul>{"".join(items)}</ul></nav>'


def _question(records: Records, frame: pd.DataFrame) -> str:
    plan = records.plan
    about = f"<p>{safe(plan.about)}</p>" if plan.about.strip() else ""
    tasks = ", ".join(f"{task.name} ({task.short}, {task.metric})" for task in plan.tasks)
    facts = [
        ("rows", f"{len(plan.rows)}: {', '.join(row.label for row in plan.rows)}"),
        ("varied", _varied(plan)),
        ("tasks", f"{len(plan.tasks)} of {plan.task_set}: {tasks}"),
        ("best row", _best(plan, frame)),
        ("spent", total_hours(records)),
    ]
    items = "".join(f"<dt>{name}</dt><dd>{safe(text)}</dd>" for name, text in facts if text)
    return section("question", "What was asked", [about, f'<dl class="facts">{items}</dl>'])


def _varied(plan: Plan) -> str:
    """The axes of the rows and the values each takes."""
    found: dict[str, list[str]] = {}
    for row in plan.rows:
        for axis, value in row.axes.items():
            if str(value) not in found.setdefault(axis, []):
                found[axis].append(str(value))
    return "; ".join(f"{axis} = {', '.join(values)}" for axis, values in found.items())


def _best(plan: Plan, frame: pd.DataFrame) -> str:
    rows = [
        (mean, label, half)
        for row_id, label, mean, half in zip(
            frame.attrs["row_ids"], frame.index, frame[c.DELTA_M], frame[c.DELTA_M_CI95], strict=True
        )
        if row_id != plan.baseline and math.isfinite(mean)
    ]
    if not rows:
        return ""
    mean, label, half = max(rows, key=lambda row: row[0])
    interval = f", 95% interval {mean - half:+.2f} to {mean + half:+.2f}" if math.isfinite(half) else ""
    return f"{label}: Delta_m {mean:+.2f} %{interval}"
