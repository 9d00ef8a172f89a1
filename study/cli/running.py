"""Commands that train or build."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from study.addresses import mask
from study.cli.options import (
    FAILURES,
    INTERRUPTED,
    assigned,
    example,
    executor_settings,
    home_hint,
    home_option,
    json_option,
    planning,
    plans_of,
    print_json,
    running_options,
    screen,
    show_report,
    table_text,
    usable_cores,
)
from study.home import Home

if TYPE_CHECKING:
    from study.plan import Plan
    from study.runner import Outcome


@click.command(epilog=example("mtl-study plan table4_d5", "mtl-study plan table4_d5 --profile gpu --seeds 5 --json"))
@planning
@json_option
def plan(
    study: str, profile: str | None, seeds: int | None, assignments: tuple[str, ...], home: Path | None, as_json: bool
) -> None:
    """Show the cells of a study, bundle or YAML file: finished, shared, left, and the time; of a search, what it may
    cost at most. Trains nothing."""
    from study.overview import plan_overview
    from study.search.spec import load_search, search_names

    if study in search_names():
        from study.cli.searching import show_plan
        from study.search.plan import plan_search

        planned = plan_search(load_search(study), profile, seeds, assigned(assignments))
        show_plan(planned, Home.locate(home), usable_cores(), as_json=as_json)
        return

    overview = plan_overview(plans_of(study, profile, seeds, assignments), Home.locate(home), usable_cores())
    if as_json:
        print_json(overview.to_dict())
    else:
        overview.print(screen())


@click.command(
    "run",
    epilog=example("mtl-study run table4_d5", "mtl-study run table4_d5 --seeds 5 --set train.budget.amount=1000"),
)
@planning
@running_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line: what happens, the table, the end.")
def run_command(
    study: str,
    profile: str | None,
    seeds: int | None,
    assignments: tuple[str, ...],
    home: Path | None,
    *,
    as_json: bool,
    **how: Any,
) -> int:
    """Train what a study lacks, then print its table. Run again, it takes up what was interrupted and skips what is
    finished."""
    return run_plans(plans_of(study, profile, seeds, assignments), home, how, as_json=as_json)


def run_plans(plans: Sequence[Plan], home: Path | None, how: Mapping[str, Any], *, as_json: bool = False) -> int:
    """Run studies one after another as the running options say, and print each one's table; the exit code.

    ``as_json`` prints a line of JSON for each event, table and end instead, and nothing else.
    """
    from analysis.delta_m import delta_m
    from study.runner import run_study

    where = Home.locate(home)
    console = Console(stderr=True, quiet=how["quiet"] or as_json)
    settings = executor_settings(how)
    failed = False
    for planned in plans:
        outcome = run_study(
            planned,
            where,
            executor=how["executor"],
            settings=settings,
            device=how["device"],
            console=console,
            gain=delta_m,
            emit=print_event if as_json else None,
        )
        if as_json:
            _emit_outcome(outcome, planned, where)
        else:
            _say_outcome(outcome, planned, console, home)
        failed |= bool(outcome.failures)
        if outcome.interrupted:
            console.print("stopped; the same command goes on where it was", highlight=False)
            return INTERRUPTED
        if as_json:
            continue
        click.echo(table_text(where, planned.spec.id, planned.profile, "text"))
        report = show_report(where, planned.spec.id, planned.profile)
        console.print(f"\nReport:    open {report}", highlight=False, soft_wrap=True)
    console.print(f"MLflow UI: mtl-study ui{home_hint(home)}", highlight=False, soft_wrap=True)
    return FAILURES if failed else 0


def print_event(event: Mapping[str, Any]) -> None:
    """One line of JSON on standard output, at once."""
    click.echo(json.dumps(event, default=str))
    sys.stdout.flush()


def _emit_outcome(outcome: Outcome, planned: Plan, where: Home) -> None:
    about = {"study": planned.spec.id, "profile": planned.profile}
    if not outcome.interrupted:
        table = json.loads(table_text(where, planned.spec.id, planned.profile, "json"))
        report = str(show_report(where, planned.spec.id, planned.profile))
        print_event({"event": "table", **about, "report": report, "table": table})
    failures = [
        {"trial": label, "reason": mask(reason), "config": str(outcome.configs[label])}
        for label, reason in outcome.failures
    ]
    counts = {"trials": len(planned.trials), "found": outcome.found, "trained": outcome.trained}
    print_event({"event": "end", **about, **counts, "failures": failures, "interrupted": outcome.interrupted})


def _say_outcome(outcome: Outcome, planned: Plan, console: Console, home: Path | None) -> None:
    total = len(planned.trials)
    counts = f"{total} trials, {outcome.found} found finished, {outcome.trained} trained"
    console.print(f"{planned.spec.id} at profile {planned.profile}: {counts}", highlight=False)
    for label, reason in outcome.failures:
        click.echo(f"failed: {label}: {mask(reason)}", err=True)
        click.echo(f"  to repeat it: mtl-study trial {outcome.configs[label]}{home_hint(home)}", err=True)


@click.command(
    epilog=example("mtl-study trial config.yaml", "mtl-study trial config.yaml --set method.beta=1e-2 --json")
)
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--set", "assignments", multiple=True, metavar="PATH=VALUE", help="Set a trial-config field.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Take up, and leave, a checkpoint in this file.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@home_option
@json_option
def trial(
    config: Path, assignments: tuple[str, ...], checkpoint: Path | None, device: str, home: Path | None, as_json: bool
) -> int:
    """Train one trial here and now, without Ray and without records: for debugging."""
    from study.foreground import run_foreground

    return run_foreground(config, assigned(assignments), checkpoint, device, Home.locate(home), as_json=as_json)
