"""Commands that look at data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from study.cli.options import (
    FAILURES,
    assigned,
    example,
    home_option,
    json_option,
    print_json,
    screen,
    usable_cores,
)
from study.home import Home

if TYPE_CHECKING:
    from trainables.data.base import CheckResult


@click.group()
def data() -> None:
    """Look at data sets."""


_fields = click.option(
    "--set", "assignments", multiple=True, metavar="FIELD=VALUE", help="A field of the data set's config."
)


@data.command(
    "show",
    epilog=example("mtl-study data show scenes", "mtl-study data show scenes --set image_size=128 --out sheet.png"),
)
@click.argument("name")
@_fields
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="train", show_default=True)
@click.option("--count", type=click.IntRange(1, 32), default=4, show_default=True, help="Samples.")
@click.option("--out", type=click.Path(path_type=Path), help="PNG to write (default: NAME.png in the home).")
@home_option
def data_show(
    name: str, assignments: tuple[str, ...], split: str, count: int, out: Path | None, home: Path | None
) -> None:
    """Write a contact sheet: images and every label."""
    from study.foreground import show_data

    click.echo(show_data(name, assigned(assignments), split, count, out, Home.locate(home), usable_cores()))


@data.command(
    "check",
    epilog=example(
        "mtl-study data check nyud /data/NYUDv2", "mtl-study data check taskonomy /data/taskonomy --set subset=medium"
    ),
)
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@_fields
@click.option(
    "--out", type=click.Path(path_type=Path), help="PNG of the first samples (default: NAME-check.png in the home)."
)
@click.option("--workers", type=click.IntRange(min=1), help="Threads that decode (default: one per usable core).")
@home_option
@json_option
def data_check(
    name: str,
    path: Path,
    assignments: tuple[str, ...],
    out: Path | None,
    workers: int | None,
    home: Path | None,
    as_json: bool,
) -> int:
    """Decode every file of a data set in the folder PATH and say what is there, missing and damaged.

    Exit code 0 where it is complete, 1 where it is not, 2 where PATH is no folder of this data set. Nothing is written
    into PATH.
    """
    from study.foreground import check_data

    result, sheet = check_data(name, path, assigned(assignments), out, Home.locate(home), workers or usable_cores())
    if as_json:
        print_json({**result.to_dict(), "sheet": None if sheet is None else str(sheet)})
    else:
        _print(result, sheet)
    return 0 if result.complete else FAILURES


def _print(result: CheckResult, sheet: Path | None) -> None:
    click.echo(f"{result.name} in {result.root}: layout {result.layout}\n")
    table = Table("split", "label", box=None, padding=(0, 2, 0, 0))
    for number in ("found", "listed", "expected"):
        table.add_column(number, justify="right")
    table.add_column()
    for count in result.counts:
        numbers = (str(count.found), str(count.listed), str(count.expected))
        table.add_row(count.split, count.label, *numbers, "" if count.complete else "differs")
    screen().print(table)
    if result.problems:
        click.echo(f"\nmissing or damaged: {result.damaged}")
        for problem in result.problems:
            click.echo(f"  {problem}")
        if result.damaged > len(result.problems):
            click.echo(f"  and {result.damaged - len(result.problems)} more")
    if sheet is not None:
        click.echo(f"\nlabels to look at: {sheet}")
    click.echo("\ncomplete" if result.complete else "\nnot complete")
