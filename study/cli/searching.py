"""Commands around hyperparameter search."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

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
    options,
    print_json,
    profile_option,
    running_options,
    screen,
    show_report,
    table_text,
    usable_cores,
)
from study.cli.running import print_event, run_plans
from study.home import Home
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from study.search import SearchPlan
    from study.search.engine import SearchOutcome

_budget = options(
    click.option("--trials", type=click.IntRange(min=1), help="Trials of each contender instead of the spec's."),
    click.option("--trunk-passes", type=click.FloatRange(min=0, min_open=True), help="Trunk passes of each contender."),
    click.option("--sampler", help="tpe, gp, cmaes, nsga2, nsga3, random, qmc, grid or brute_force."),
    click.option("--sampler-seed", type=click.IntRange(min=0), help="Of the sampler's draws: repeats of one search."),
    click.option("--pruner", help="asha, hyperband, median, patient or none."),
)


@click.command(
    "search",
    epilog=example(
        "mtl-study search tune_selective",
        "mtl-study search tuned --only gd,selective --trials 20 --hours 2",
        "mtl-study search tuned --plan",
        "mtl-study search tune_selective --json",
        "mtl-study search my_search.yaml --points tried.csv --warm-start",
    ),
)
@click.argument("search")
@profile_option
@click.option("--seeds", type=click.IntRange(min=1), help="Replicates of the final table instead of the profile's.")
@click.option("--set", "assignments", multiple=True, metavar="PATH=VALUE", help="Set a trial-config field everywhere.")
@click.option("--only", help="Contenders to search, by id, with commas between.")
@_budget
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="Start no trial after so many hours.")
@click.option("--gpu-hours", type=click.FloatRange(min=0, min_open=True), help="... after so many hours of GPU use.")
@click.option("--warm-start", is_flag=True, help="Learn from finished trials of any study whose configs fit.")
@click.option(
    "--points", type=click.Path(path_type=Path), help="CSV of points to try first; its columns are field paths."
)
@click.option("--storage", help="Optuna's storage by URL, or journal:PATH (else $MTL_STUDY_OPTUNA, else the home's).")
@click.option("--no-final", is_flag=True, help="Do not train the winners on fresh seeds.")
@click.option("--plan", "plan_only", is_flag=True, help="Show spaces, trials, passes and time. Trains nothing.")
@running_options
@home_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object a line: what happens, the table, the end; one object with --plan.",
)
def search_command(search: str, *, home: Path | None, as_json: bool, plan_only: bool, **given: Any) -> int:
    """Tune with Optuna, then train each winner on fresh seeds and print defaults beside tuned.

    Run again, it goes on where it was. Ctrl-C lets running trials finish; twice, it stops them at their next
    checkpoint.
    """
    from study.search.plan import plan_search

    spec = _spec(search, given)
    planned = plan_search(spec, given["profile"], given["seeds"], assigned(given["assignments"]))
    where = Home.locate(home)
    if plan_only:
        return show_plan(planned, where, given["workers"] or usable_cores(), as_json=as_json)
    return _run(planned, where, given, home, as_json=as_json)


def _spec(search: str, given: dict[str, Any]) -> Any:
    from study.search.spec import load_search

    spec = load_search(search).changed(
        trials=given["trials"],
        trunk_passes=given["trunk_passes"],
        sampler=given["sampler"],
        pruner=given["pruner"],
        sampler_seed=given["sampler_seed"],
    )
    return spec.restricted(given["only"].split(",")) if given["only"] else spec


def _run(planned: SearchPlan, where: Home, given: dict[str, Any], home: Path | None, *, as_json: bool) -> int:
    from analysis.delta_m import delta_m
    from study.search.engine import SearchOptions, run_search
    from study.search.limits import Limits

    console = Console(stderr=True, quiet=given["quiet"] or as_json)
    points = read_points(given["points"]) if given["points"] else []
    outcome = run_search(
        planned,
        where,
        delta_m,
        options=SearchOptions(
            limits=Limits(given["hours"], given["gpu_hours"]),
            storage=given["storage"],
            warm_start=given["warm_start"],
            points={contender.id: points for contender in planned.contenders},
            final=not given["no_final"],
        ),
        executor=given["executor"],
        settings=executor_settings(given),
        device=given["device"],
        console=console,
        emit=print_event if as_json else None,
    )
    failed = bool(outcome.failures or (outcome.final and outcome.final.failures))
    if as_json:
        _emit_outcome(outcome, planned, where)
        return INTERRUPTED if outcome.interrupted else FAILURES if failed else 0
    for label, reason in outcome.failures:
        click.echo(f"failed: {label}: {reason}", err=True)
    if outcome.interrupted:
        console.print("stopped; the same command goes on where it was", highlight=False)
        return INTERRUPTED
    if outcome.ended:
        console.print(f"ended early: {outcome.ended}; the same command goes on", highlight=False)
    if outcome.final is not None:
        click.echo(table_text(where, planned.spec.id, planned.profile, "text"))
        report = show_report(where, planned.spec.id, planned.profile)
        console.print(f"\nReport:    open {report}", highlight=False, soft_wrap=True)
    hint = f"mtl-study search-report {planned.spec.id}{home_hint(home)}"
    console.print(f"Search:    {hint}", highlight=False, soft_wrap=True)
    return FAILURES if failed else 0


def _emit_outcome(outcome: SearchOutcome, planned: SearchPlan, where: Home) -> None:
    about = {"search": planned.spec.id, "profile": planned.profile}
    if outcome.final is not None and not outcome.interrupted:
        table = json.loads(table_text(where, planned.spec.id, planned.profile, "json"))
        report = str(show_report(where, planned.spec.id, planned.profile))
        print_event({"event": "table", **about, "report": report, "table": table})
    failures = [*outcome.failures, *(outcome.final.failures if outcome.final else ())]
    ended = {"complete": outcome.complete, "ended": outcome.ended, "interrupted": outcome.interrupted}
    told = [{"trial": label, "reason": mask(reason)} for label, reason in failures]
    print_event({"event": "end", **about, "winners": outcome.winners, **ended, "failures": told})


def read_points(path: Path) -> list[dict[str, Any]]:
    """Points of a CSV file; an empty cell leaves the field at the contender's default."""
    from trainables.settings import parse_yaml

    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "not a CSV file in UTF-8"
        raise ConfigError(f"--points {path}: cannot be read: {reason}") from None
    points = []
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise ConfigError(f"--points {path}: line {number}: more cells than columns")
        points.append({name: parse_yaml(text, f"{path}: line {number}: {name}") for name, text in row.items() if text})
    return points


def show_plan(planned: SearchPlan, where: Home, workers: int, *, as_json: bool) -> int:
    """Print what a search may cost at most; the exit code."""
    from study.cost import CostModel, expected_passes
    from study.store import has_records, open_client

    model = CostModel(open_client(where) if has_records(where) else None)
    budget = planned.spec.budget
    lines: list[dict[str, Any]] = []
    for contender in planned.contenders:
        passes = expected_passes(contender.config)
        seconds, measured = model.trial_seconds(contender.config)
        limits = [budget.trials * passes] if budget.trials else []
        if budget.trunk_passes:
            limits.append(budget.trunk_passes)
        lines.append(
            {
                "contender": contender.id,
                "axes": list(contender.space.paths),
                "trials": budget.trials,
                "most_trunk_passes": min(limits),
                "most_seconds": min(limits) / passes * seconds / workers,
                "measured": measured,
                "optuna_study": contender.study,
            }
        )
    if as_json:
        print_json({"search": planned.spec.id, "profile": planned.profile, "contenders": lines})
        return 0
    from study.progress import duration

    table = Table("contender", "axes", "trials", "passes, at most", "time, at most", title=planned.spec.title)
    for line in lines:
        table.add_row(
            line["contender"],
            ", ".join(line["axes"]),
            str(line["trials"] or "-"),
            f"{line['most_trunk_passes']:.0f}",
            duration(line["most_seconds"]) + ("" if line["measured"] else " (guess)"),
        )
    total = sum(line["most_seconds"] for line in lines)
    table.caption = (
        f"{planned.spec.sampler.name} with pruner {planned.spec.pruner.name}; at most {duration(total)} on {workers} "
        "workers if no trial were stopped, baseline, defaults and winners not counted"
    )
    screen().print(table)
    return 0


@click.command(
    "sensitivity",
    epilog=example("mtl-study sensitivity tune_selective", "mtl-study sensitivity tuned --only cagrad --plan"),
)
@click.argument("search")
@profile_option
@click.option("--seeds", type=click.IntRange(min=1), help="Number of replicates instead of the profile's.")
@click.option("--set", "assignments", multiple=True, metavar="PATH=VALUE", help="Set a trial-config field everywhere.")
@click.option("--only", help="Contenders, by id, with commas between.")
@click.option("--plan", "plan_only", is_flag=True, help="Show the cells. Trains nothing.")
@running_options
@home_option
@json_option
def sensitivity_command(
    search: str,
    profile: str | None,
    seeds: int | None,
    assignments: tuple[str, ...],
    only: str | None,
    *,
    plan_only: bool,
    home: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Vary each knob of a search's spaces around the defaults, one at a time, and print what each makes of Delta_m."""
    from study.overview import plan_overview
    from study.search.sensitivity import sensitivity_plan
    from study.search.spec import load_search

    spec = load_search(search)
    planned = sensitivity_plan(
        spec.restricted(only.split(",")) if only else spec, profile, seeds, assigned(assignments)
    )
    where = Home.locate(home)
    if not plan_only:
        return run_plans([planned], home, given, as_json=as_json)
    overview = plan_overview([planned], where, given["workers"] or usable_cores())
    if as_json:
        print_json(overview.to_dict())
    else:
        overview.print(screen())
    return 0
