"""The command that reads a search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from study.cli.options import FORMATS, as_json_option, example, home_option, profile_option
from study.home import Home
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from analysis.search import SearchRecords


@click.command(
    "search-report",
    epilog=example(
        "mtl-study search-report tune_selective",
        "mtl-study search-report tune_selective --list",
        "mtl-study search-report tune_selective --against random+none",
        "mtl-study search-report tuned --format markdown",
    ),
)
@click.argument("search", required=False)
@profile_option
@click.option("--list", "listed", is_flag=True, help="List the recorded searches: sampler, pruner, budget, trials.")
@click.option("--run", help="Beginning of the parent run's id, where several are recorded (default: the latest).")
@click.option(
    "--against",
    help="Show the regret against other recorded searches, with commas between: a sampler (random), a sampler and "
    "pruner (random+none), a search's id, a run's id, or another home's folder.",
)
@click.option("--top", type=click.IntRange(min=0), default=5, show_default=True, help="Configs written per contender.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("html", *FORMATS)),
    default="html",
    show_default=True,
    help="html writes a folder with figures and configs and prints its page; the rest print the table.",
)
@as_json_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write (default: in the home's reports).")
@click.option("--mlflow-url", help="Where links to runs lead (default: http://127.0.0.1:5000, as mtl-study ui serves).")
@home_option
def search_report(
    search: str | None,
    profile: str | None,
    listed: bool,
    run: str | None,
    against: str | None,
    top: int,
    form: str,
    as_json: bool,
    out: Path | None,
    mlflow_url: str | None,
    home: Path | None,
) -> None:
    """Read a recorded search: history, best so far against cost, what matters, the best configs as files."""
    from analysis.render import render
    from analysis.search import SearchRecords, contenders_table

    where = Home.locate(home).path
    form = "json" if as_json else form
    if listed:
        click.echo(_list(where, search, profile, "text" if form == "html" else form))
        return
    if search is None:
        raise ConfigError("search-report: name a search (mtl-study search-report --list shows those that are recorded)")
    records = SearchRecords.load(where, search, profile, run)
    if form == "html":
        click.echo(_write(records, where, against, top, out, mlflow_url))
        return
    click.echo(render(contenders_table(records), form))
    if against and form in ("text", "markdown"):
        click.echo("\n" + "\n".join(_verdicts(records, where, against)))


def _list(home: Path, search: str | None, profile: str | None, form: str) -> str:
    from analysis.render import render
    from analysis.search import recorded_searches, searches_table
    from analysis.store import Store

    found = [
        entry
        for entry in recorded_searches(Store(home))
        if search in (None, entry.plan.search) and profile in (None, entry.plan.profile)
    ]
    return render(searches_table(found), form)


def _write(
    records: SearchRecords, home: Path, against: str | None, top: int, out: Path | None, mlflow_url: str | None
) -> Path:
    from analysis.report import RunLinks
    from analysis.search import ways_to_search, write_search_report

    plan = records.plan
    named = f"search-{plan.search}-{plan.profile}-{plan.sampler.name}-{plan.pruner.name}-{records.run.run_id[:8]}"
    ways = ways_to_search(records, home, _split(against)) if against else None
    links = RunLinks(mlflow_url) if mlflow_url else RunLinks()
    folder = out or home / "reports" / named
    return write_search_report(records, folder, shorten, against=ways, top=top, links=links)


def _verdicts(records: SearchRecords, home: Path, against: str) -> list[str]:
    from analysis.search import comparisons, verdict, ways_to_search

    ways = ways_to_search(records, home, _split(against))
    ours = next(iter(ways))
    return [f"{verdict(ours, theirs, title, found)}." for theirs, title, found in comparisons(ways)]


def _split(against: str) -> list[str]:
    return [name.strip() for name in against.split(",") if name.strip()]


def shorten(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A resolved trial config without what is default; raises :class:`ConfigError` where this version refuses it."""
    from trainables.config import load_trial

    return load_trial(config, "recorded config").canonical()
