"""Commands that read: what there is, what is recorded, what it says."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.table import Table

from study.cli.options import (
    FORMATS,
    as_json_option,
    example,
    format_option,
    home_option,
    json_option,
    print_json,
    profile_option,
    screen,
    studies,
    study_bibtex,
    table_text,
    write_study_report,
)
from study.home import Home


@click.command("list", epilog=example("mtl-study list", "mtl-study list --json"))
@json_option
def list_command(as_json: bool) -> None:
    """List studies, profiles, methods, data sets, task sets and backbones."""
    from study.catalogue import catalogue

    entries = catalogue()
    if as_json:
        print_json(entries)
        return
    console = screen()
    for kind, items in entries.items():
        table = Table(title=kind, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 2))
        for name, about in items.items():
            table.add_row(name, about)
        console.print(table)


@click.command(epilog=example("mtl-study status table4_d5", "mtl-study status table4_d5 --json"))
@click.argument("study")
@profile_option
@home_option
@json_option
def status(study: str, profile: str | None, home: Path | None, as_json: bool) -> None:
    """Show how far a recorded study is: every trial's state and cost."""
    from study.overview import status_overview

    overviews = [status_overview(Home.locate(home), name, profile) for name in studies(study)]
    if as_json:
        found = [overview.to_dict() for overview in overviews]
        print_json(found if len(found) > 1 else found[0])
    else:
        for overview in overviews:
            overview.print(screen())


@click.command(epilog=example("mtl-study table table4_d5", "mtl-study table table4_d5 --format latex > table.tex"))
@click.argument("study")
@profile_option
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@home_option
def table(study: str, profile: str | None, form: str, as_json: bool, home: Path | None) -> None:
    """Print a study's table from the records, the published numbers beside the measured ones."""
    form = "json" if as_json else form
    texts = [table_text(Home.locate(home), name, profile, form) for name in studies(study)]
    several = len(texts) > 1 and form == "json"
    click.echo(json.dumps([json.loads(text) for text in texts], indent=2) if several else "\n\n".join(texts))


@click.command(
    epilog=example("mtl-study report table4_d5", "mtl-study report table4_d5 --format bibtex > references.bib")
)
@click.argument("study")
@profile_option
@click.option(
    "--format",
    "form",
    type=click.Choice(("html", "markdown", "latex", "csv", "bibtex")),
    default="html",
    show_default=True,
    help="html writes a file and prints its path; bibtex prints the papers of what is compared, latex a document that "
    "compiles as it is, the rest the table.",
)
@click.option("--mlflow-url", help="Where links to runs lead (default: http://127.0.0.1:5000, as mtl-study ui serves).")
@home_option
def report(study: str, profile: str | None, form: str, mlflow_url: str | None, home: Path | None) -> None:
    """Write a study's report: one HTML file that needs no network."""
    where = Home.locate(home)
    if form == "html":
        for name in studies(study):
            click.echo(write_study_report(where, name, profile, mlflow_url))
    elif form == "bibtex":
        click.echo("\n\n".join(study_bibtex(where, name, profile) for name in studies(study)))
    else:
        from analysis.report import latex_document

        tables = [table_text(where, name, profile, form) for name in studies(study)]
        click.echo(latex_document(tables) if form == "latex" else "\n\n".join(tables))


@click.command(epilog=example("mtl-study figure fig4 --out figures", "mtl-study figure curves --study table4_d5"))
@click.argument("name")
@click.option("--study", help="For figures that any study has (curves, bars): which one.")
@profile_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write into (default: figures in the home).")
@home_option
def figure(name: str, study: str | None, profile: str | None, out: Path | None, home: Path | None) -> None:
    """Draw a figure from the records, as PNG and SVG."""
    from analysis.figures import make_figure

    where = Home.locate(home)
    for path in make_figure(name, where.path, profile, out or where.path / "figures", study=study):
        click.echo(path)


@click.command(epilog=example("mtl-study audit", "mtl-study audit --format markdown"))
@format_option
@as_json_option
def audit(form: str, as_json: bool) -> None:
    """Recompute every published Delta_m from the published task numbers; list the rows that cannot be right."""
    from analysis.audit import audit as find
    from analysis.render import render

    click.echo(render(find(), "json" if as_json else form))


@click.command(epilog=example("mtl-study claims", "mtl-study claims --profile cpu --format markdown"))
@profile_option
@format_option
@as_json_option
@home_option
def claims(profile: str | None, form: str, as_json: bool, home: Path | None) -> None:
    """Test the paper's statements on the records: supported, contradicted, or undecided and how many seeds more."""
    from analysis.claims import claims as judge
    from analysis.render import render

    click.echo(render(judge(Home.locate(home).path, profile), "json" if as_json else form))


@click.command(epilog=example("mtl-study ui", "mtl-study ui --port 5050", "mtl-study ui --optuna"))
@click.option("--port", type=click.IntRange(1, 65535), help="The next free one is taken (default: 5000; Optuna 8080).")
@click.option("--optuna", is_flag=True, help="The Optuna dashboard of the home's searches instead.")
@click.option("--storage", help="With --optuna: Optuna's storage, as for `search`.")
@home_option
def ui(port: int | None, *, optuna: bool, storage: str | None, home: Path | None) -> int:
    """Open the MLflow UI, or the Optuna dashboard, on this machine's loopback address, until Ctrl-C."""
    from study.ui import serve, serve_optuna

    if optuna:
        return serve_optuna(Home.locate(home), port or 8080, storage)
    return serve(Home.locate(home), port or 5000)
