"""The report of a search: a folder with a page that needs nothing else, figures, trials and the best configs."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pandas as pd

from analysis.escape import DASH
from analysis.files import write_whole
from analysis.render import render
from analysis.report.markup import Cell, Head, RunLinks, notes, safe, section, table
from analysis.search.gallery import Picture, Ways, common_contenders, draw_all
from analysis.search.overview import contenders_table, importance_table, interaction_table, trials_table
from analysis.search.records import SearchRecords
from analysis.search.regret import Regret, regret
from analysis.search.top import Shorten, top_configs

PAGE = "index.html"
_RESOURCES = ("style.css", "script.js")
_CLASSES = {"diverged": "diverged", "failed": "failed"}


def write_search_report(
    records: SearchRecords,
    folder: Path,
    shorten: Shorten,
    *,
    against: Ways | None = None,
    top: int = 5,
    links: RunLinks | None = None,
) -> Path:
    """Write the report and return its page.

    ``index.html`` is self-contained; beside it lie every figure as PNG and SVG, ``trials.csv``, ``contenders.md`` and,
    in ``top``, the configs of the best trials, ready for ``mtl-study trial``.

    Args:
        records: of the search.
        folder: made where needed.
        shorten: leaves out of a resolved trial config what is default.
        against: ways to search that it is held against, itself first.
        top: configs written of each contender.
        links: to the MLflow UI.

    Raises:
        StoreError: records cannot be read or files not be written.
    """
    ways = against or {}
    drawn = draw_all(records, ways, folder)
    configs = top_configs(records, folder / "top", top, shorten)
    trials, contenders, shares = trials_table(records), contenders_table(records), importance_table(records)
    write_whole(folder / "trials.csv", render(trials, "csv").encode(), "table")
    write_whole(folder / "contenders.md", render(contenders, "markdown").encode(), "table")
    links = links or RunLinks()
    runs = dict(records.trials[["run_id", "experiment_id"]].itertuples(index=False, name=None))
    sections = [
        section(
            "results",
            "What was spent and found",
            [_facts(records), _listed("contenders", contenders, links, runs), notes(contenders.attrs["footnotes"])],
        ),
        section("progress", "How it went", _figures(drawn, "progress")),
        _regret_section(drawn, ways),
        section(
            "axes",
            "What matters",
            [
                _listed("shares", shares, links, runs, filtered=True),
                notes(shares.attrs["footnotes"]),
                *_figures(drawn, "axes"),
                _listed("pairs", interaction_table(records), links, runs, filtered=True),
            ],
        ),
        section("best", "The best configs", [_configs(configs)]),
        section("trials", "Every trial", [_listed("every", trials, links, runs, filtered=True)]),
    ]
    page = _page(records, [part for part in sections if part])
    return write_whole(folder / PAGE, page.encode(), "report")


def comparisons(ways: Ways) -> list[tuple[str, str, Regret]]:
    """Label of a reference, contender's label and the comparison, of the first way with each other one.

    Raises:
        StoreError: a search has no whole trial of a contender that all have.
    """
    labels = list(ways)
    return [
        (label, title, regret(ways[labels[0]], ways[label], contender))
        for contender, title in common_contenders(ways).items()
        for label in labels[1:]
    ]


def verdict(ours: str, theirs: str, title: str, found: Regret) -> str:
    """One comparison in a sentence."""
    head = f"{title}: {theirs} ends with Delta_m {found.target:+.2f} %, reached after {found.reference_cost:,.0f} of "
    head += f"{found.reference_total:,.0f} trunk passes; {ours} "
    if not math.isfinite(found.search_cost):
        return head + f"does not reach it with {found.search_total:,.0f} (it ends with {found.search_final:+.2f} %)"
    share = f", {found.ratio:.2f} of that" if math.isfinite(found.ratio) else ""
    return head + f"has it after {found.search_cost:,.0f}{share}"


def _regret_section(drawn: Sequence[tuple[Picture, Path, Path]], ways: Ways) -> str:
    if len(ways) < 2:
        return ""
    ours = next(iter(ways))
    said = [verdict(ours, theirs, title, found) for theirs, title, found in comparisons(ways)]
    runs = [
        f"{label}: {', '.join(f'{records.run.run_id[:8]} (seed {records.plan.sampler.seed})' for records in repeats)}"
        for label, repeats in ways.items()
    ]
    return section("regret", "Against other ways to search", [notes(said), *_figures(drawn, "regret"), notes(runs)])


def _facts(records: SearchRecords) -> str:
    plan = records.plan
    facts = [
        ("asked", plan.about),
        ("sampler", f"{plan.sampler.name}, seed {plan.sampler.seed}"),
        ("pruner", plan.pruner.name),
        (
            "objective",
            ", ".join(f"{n} {'↑' if up else '↓'}" for n, up in zip(records.names, records.maximize, strict=True)),
        ),
        ("budget", f"{plan.budget_text} for each contender" if plan.budget_text else ""),
        ("run", f"{records.run.run_id}, {records.run.status}"),
    ]
    items = "".join(f"<dt>{name}</dt><dd>{safe(text)}</dd>" for name, text in facts if text.strip())
    return f'<dl class="facts">{items}</dl>'


def _figures(drawn: Sequence[tuple[Picture, Path, Path]], name: str) -> list[str]:
    out = []
    for picture, png, svg in drawn:
        if picture.section != name:
            continue
        # As an image an SVG runs no script and its ids do not meet those of the others.
        data = base64.b64encode(svg.read_bytes()).decode()
        title = safe(picture.title)
        out.append(
            f'<figure class="paper"><figcaption>{title} '
            f'(<a href="{safe(png.name)}">PNG</a>, <a href="{safe(svg.name)}">SVG</a>)</figcaption>'
            f'<img alt="{title}" style="width: min(100%, 60rem)" src="data:image/svg+xml;base64,{data}"></figure>'
        )
    return out


def _listed(name: str, frame: pd.DataFrame, links: RunLinks, runs: dict[str, str], *, filtered: bool = False) -> str:
    """A listing as a sortable table; where it has runs, a row's first cell links to its own."""
    entries = frame.attrs["columns"]
    if frame.empty:
        return ""
    rows = []
    for line in frame.to_dict("records"):
        cells = [_cell(line[entry["name"]], entry["format"]) for entry in entries]
        run = str(line.get("run_id") or "")
        if run in runs:
            cells[0] = Cell(links.link([(runs[run], run)], cells[0].html), cells[0].key)
        rows.append((_CLASSES.get(str(line.get("status", "")), ""), cells))
    heads = [Head(entry["header"], words=not entry["format"]) for entry in entries]
    return table(name, frame.attrs["title"], heads, rows, searched=filtered and len(rows) > 8)


def _cell(value: object, spec: str) -> Cell:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Cell(DASH, math.nan if spec else None)
    if spec and isinstance(value, (int, float)):
        return Cell(safe(format(value, spec)), float(value))
    return Cell(safe(value))


def _configs(paths: Sequence[Path]) -> str:
    if not paths:
        return "<p>No trial went to its end.</p>"
    items = "".join(
        f'<li><a href="top/{safe(path.name)}">{safe(path.name)}</a>: <code>mtl-study trial top/{safe(path.name)}</code>'
        f"</li>"
        for path in paths
    )
    return f"<p>Each trains and tests one of the best trials anew:</p><ul>{items}</ul>"


def _page(records: SearchRecords, sections: Sequence[str]) -> str:
    style, script = (files("analysis.report").joinpath(name).read_text(encoding="utf-8") for name in _RESOURCES)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    plan = records.plan
    title = safe(f"{plan.title}: the search")
    links = []
    for part in sections:
        name = part.partition('id="')[2].partition('"')[0]
        heading = part.partition("<h2")[2].partition(">")[2].partition("</h2>")[0]
        links.append(f'<li><a href="#{name}">{heading}</a></li>')
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'unsafe-inline'; script-src 'sha256-{allowed}'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#results">Skip to the results</a>\n'
        f"<header><h1>{title}</h1>\n<p>Search <code>{safe(plan.search)}</code>, profile "
        f"<code>{safe(plan.profile)}</code>, {safe(plan.way)}, {len(records.trials)} trials.</p>\n</header>\n"
        f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>\n'
        f"<main>\n{chr(10).join(sections)}\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )
