"""The command ``mtl-study``."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.console import Console
from rich.table import Table

from study import environment
from study.home import DEFAULT, VARIABLE, Home
from trainables.errors import ConfigError, UserError, unknown

if TYPE_CHECKING:
    from study.plan import Plan
    from study.runner import Outcome

environment.quiet()

USER_ERROR = 2
FAILURES = 1
INTERRUPTED = 130


def entry_point() -> NoReturn:
    """Run the command; user errors end in one line and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of one invocation: 0; 1 where trials failed; 2 for a user error, said in one line; 130 after
    Ctrl-C."""
    try:
        code = main.main(args=arguments, prog_name="mtl-study", standalone_mode=False)
    except click.ClickException as error:
        return _say(error.format_message())
    except UserError as error:
        return _say(str(error))
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone (`mtl-study list | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code if isinstance(code, int) else 0


def _say(message: str) -> int:
    click.echo("error: " + " ".join(message.split()), err=True)
    return USER_ERROR


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            raise ConfigError(unknown("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


def _example(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def _options(*options: Callable[..., Any]) -> Callable[..., Any]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_home = click.option(
    "--home", type=click.Path(path_type=Path), help=f"Folder of all state (else ${VARIABLE}, else ./{DEFAULT})."
)
_profile = click.option("--profile", help="smoke, cpu, gpu or paper (default: the study's own).")
_planning = _options(
    click.argument("study"),
    _profile,
    click.option("--seeds", type=click.IntRange(min=1), help="Number of replicates instead of the profile's."),
    click.option(
        "--set", "assignments", multiple=True, metavar="PATH=VALUE", help="Set a trial-config field in every trial."
    ),
    _home,
)


@click.group(cls=_Group, epilog=_example("mtl-study list", "mtl-study run table4_d5"))
@click.version_option(package_name="mtl-study")
def main() -> None:
    """Hyperparameter and ablation studies for multi-task optimization."""


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))


def _assignments(items: tuple[str, ...]) -> dict[str, Any]:
    from trainables.settings import parse_yaml

    out: dict[str, Any] = {}
    for item in items:
        path, equals, text = item.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {item}: PATH=VALUE is wanted, like --set optim.lr=1e-3")
        out[path] = parse_yaml(text, f"--set {path}")
    return out


def _plans(study: str, profile: str | None, seeds: int | None, assignments: tuple[str, ...]) -> list[Plan]:
    from study.plan import make_plan
    from study.spec import load_spec

    fields = _assignments(assignments)
    return [make_plan(load_spec(name), profile, seeds, fields) for name in _studies(study)]


def _studies(name: str) -> tuple[str, ...]:
    from study.spec import studies_of

    return studies_of(name)


@main.command("list", epilog=_example("mtl-study list", "mtl-study list --json"))
@_json
def list_command(as_json: bool) -> None:
    """List studies, profiles, methods, data sets, task sets and backbones."""
    from study.catalogue import catalogue

    entries = catalogue()
    if as_json:
        _print_json(entries)
        return
    console = Console()
    for kind, items in entries.items():
        table = Table(title=kind, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 2))
        for name, about in items.items():
            table.add_row(name, about)
        console.print(table)


@main.command(epilog=_example("mtl-study plan table4_d5", "mtl-study plan table4_d5 --profile gpu --seeds 5 --json"))
@_planning
@_json
def plan(
    study: str, profile: str | None, seeds: int | None, assignments: tuple[str, ...], home: Path | None, as_json: bool
) -> None:
    """Show the cells of a study, bundle or YAML file: finished, shared, left, and the time. Trains nothing."""
    from study.overview import plan_overview

    overview = plan_overview(_plans(study, profile, seeds, assignments), Home.locate(home), _workers())
    if as_json:
        _print_json(overview.to_dict())
    else:
        overview.print(Console())


@main.command(
    "run",
    epilog=_example("mtl-study run table4_d5", "mtl-study run table4_d5 --seeds 5 --set train.budget.amount=1000"),
)
@_planning
@click.option("--executor", default="ray", show_default=True, help="ray, or local for plain worker processes.")
@click.option("--workers", type=click.IntRange(min=1), help="Trials at a time (default: one per usable core).")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--gpus-per-trial", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
@click.option("--quiet", is_flag=True, help="Print the table alone.")
def run_command(
    study: str,
    profile: str | None,
    seeds: int | None,
    assignments: tuple[str, ...],
    home: Path | None,
    executor: str,
    workers: int | None,
    device: str,
    gpus_per_trial: float,
    quiet: bool,
) -> int:
    """Train what a study lacks, then print its table. Run again, it takes up what was interrupted and skips what is
    finished."""
    from analysis.delta_m import delta_m
    from study.executors import ExecutorSettings
    from study.runner import run_study

    plans = _plans(study, profile, seeds, assignments)
    where = Home.locate(home)
    console = Console(stderr=True, quiet=quiet)
    settings = ExecutorSettings(workers=workers or _workers(), gpus_per_trial=gpus_per_trial)
    failed = False
    for planned in plans:
        outcome = run_study(
            planned, where, executor=executor, settings=settings, device=device, console=console, gain=delta_m
        )
        _say_outcome(outcome, planned, console)
        failed |= bool(outcome.failures)
        if outcome.interrupted:
            console.print("stopped; the same command goes on where it was", highlight=False)
            return INTERRUPTED
        click.echo(_table_text(where, planned.spec.id, planned.profile, "text"))
        report = _write_report(where, planned.spec.id, planned.profile)
        console.print(f"\nReport:    open {report}", highlight=False, soft_wrap=True)
    console.print(f"MLflow UI: mtl-study ui{_home_hint(home)}", highlight=False, soft_wrap=True)
    return FAILURES if failed else 0


def _say_outcome(outcome: Outcome, planned: Plan, console: Console) -> None:
    total = len(planned.trials)
    counts = f"{total} trials, {outcome.found} found finished, {outcome.trained} trained"
    console.print(f"{planned.spec.id} at profile {planned.profile}: {counts}", highlight=False)
    for label, reason in outcome.failures:
        click.echo(f"failed: {label}: {reason}", err=True)


def _home_hint(home: Path | None) -> str:
    return f" --home {home}" if home else ""


def _workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


@main.command(epilog=_example("mtl-study status table4_d5", "mtl-study status table4_d5 --json"))
@click.argument("study")
@_profile
@_home
@_json
def status(study: str, profile: str | None, home: Path | None, as_json: bool) -> None:
    """Show how far a recorded study is: every trial's state and cost."""
    from study.overview import status_overview

    overviews = [status_overview(Home.locate(home), name, profile) for name in _studies(study)]
    if as_json:
        found = [overview.to_dict() for overview in overviews]
        _print_json(found if len(found) > 1 else found[0])
    else:
        for overview in overviews:
            overview.print(Console())


_FORMATS = ("text", "markdown", "latex", "csv", "json")


@main.command(epilog=_example("mtl-study table table4_d5", "mtl-study table table4_d5 --format latex > table.tex"))
@click.argument("study")
@_profile
@click.option("--format", "form", type=click.Choice(_FORMATS), default="text", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@_home
def table(study: str, profile: str | None, form: str, as_json: bool, home: Path | None) -> None:
    """Print a study's table from the records, the published numbers beside the measured ones."""
    form = "json" if as_json else form
    texts = [_table_text(Home.locate(home), name, profile, form) for name in _studies(study)]
    several = len(texts) > 1 and form == "json"
    click.echo(json.dumps([json.loads(text) for text in texts], indent=2) if several else "\n\n".join(texts))


def _table_text(home: Home, study: str, profile: str | None, form: str) -> str:
    from analysis.records import Records
    from analysis.render import render
    from analysis.tables import make_table

    return render(make_table(Records.load(home.path, study, profile)), form)


@main.command(epilog=_example("mtl-study report table4_d5", "mtl-study report table4_d5 --profile gpu"))
@click.argument("study")
@_profile
@_home
def report(study: str, profile: str | None, home: Path | None) -> None:
    """Write a study's report: one HTML file that needs no network."""
    for name in _studies(study):
        click.echo(_write_report(Home.locate(home), name, profile))


def _write_report(home: Home, study: str, profile: str | None) -> Path:
    from analysis.records import Records
    from analysis.report import write_report

    records = Records.load(home.path, study, profile)
    return write_report(records, home.report(study, records.profile))


@main.command(epilog=_example("mtl-study figure fig4 --out figures", "mtl-study figure curves --study table4_d5"))
@click.argument("name")
@click.option("--study", help="For figures that any study has (curves, bars): which one.")
@_profile
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write into (default: figures in the home).")
@_home
def figure(name: str, study: str | None, profile: str | None, out: Path | None, home: Path | None) -> None:
    """Draw a figure from the records, as PNG and SVG."""
    from analysis.figures import make_figure

    where = Home.locate(home)
    for path in make_figure(name, where.path, profile, out or where.path / "figures", study=study):
        click.echo(path)


_format = click.option("--format", "form", type=click.Choice(_FORMATS), default="text", show_default=True)
_as_json = click.option("--json", "as_json", is_flag=True, help="The same as --format json.")


@main.command(epilog=_example("mtl-study audit", "mtl-study audit --format markdown"))
@_format
@_as_json
def audit(form: str, as_json: bool) -> None:
    """Recompute every published Delta_m from the published task numbers; list the rows that cannot be right."""
    from analysis.audit import audit as find
    from analysis.render import render

    click.echo(render(find(), "json" if as_json else form))


@main.command(epilog=_example("mtl-study claims", "mtl-study claims --profile cpu --format markdown"))
@_profile
@_format
@_as_json
@_home
def claims(profile: str | None, form: str, as_json: bool, home: Path | None) -> None:
    """Test the paper's statements on the records: supported, contradicted, or undecided and how many seeds more."""
    from analysis.claims import claims as judge
    from analysis.render import render

    click.echo(render(judge(Home.locate(home).path, profile), "json" if as_json else form))


@main.command(
    epilog=_example("mtl-study trial config.yaml", "mtl-study trial config.yaml --set method.beta=1e-2 --json")
)
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--set", "assignments", multiple=True, metavar="PATH=VALUE", help="Set a trial-config field.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Take up, and leave, a checkpoint in this file.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@_home
@_json
def trial(
    config: Path, assignments: tuple[str, ...], checkpoint: Path | None, device: str, home: Path | None, as_json: bool
) -> int:
    """Train one trial here and now, without Ray and without records: for debugging."""
    from study.foreground import run_foreground

    return run_foreground(config, _assignments(assignments), checkpoint, device, Home.locate(home), as_json=as_json)


@main.group()
def data() -> None:
    """Look at data sets."""


@data.command(
    "show",
    epilog=_example("mtl-study data show scenes", "mtl-study data show scenes --set image_size=128 --out sheet.png"),
)
@click.argument("name")
@click.option("--set", "assignments", multiple=True, metavar="FIELD=VALUE", help="A field of the data set's config.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="train", show_default=True)
@click.option("--count", type=click.IntRange(1, 32), default=4, show_default=True, help="Samples.")
@click.option("--out", type=click.Path(path_type=Path), help="PNG to write (default: NAME.png in the home).")
@_home
def data_show(
    name: str, assignments: tuple[str, ...], split: str, count: int, out: Path | None, home: Path | None
) -> None:
    """Write a contact sheet: images and every label."""
    from study.foreground import show_data

    click.echo(show_data(name, _assignments(assignments), split, count, out, Home.locate(home), _workers()))


@main.command(epilog=_example("mtl-study ui", "mtl-study ui --port 5050"))
@click.option(
    "--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="The next free one is taken."
)
@_home
def ui(port: int, home: Path | None) -> int:
    """Open the MLflow UI on this machine's loopback address, until Ctrl-C."""
    from study.ui import serve

    return serve(Home.locate(home), port)


@main.command(epilog=_example("mtl-study doctor", "mtl-study doctor --json"))
@_home
@_json
def doctor(home: Path | None, as_json: bool) -> int:
    """Check versions, devices, data roots and Ray; say what is missing and how to get it. Exit code 1 where something
    is."""
    from study.doctor import examine

    findings = examine(Home.locate(home))
    if as_json:
        _print_json([finding.to_dict() for finding in findings])
    else:
        grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for finding in findings:
            grid.add_row(finding.mark, finding.name, finding.found, finding.fix)
        Console().print(grid)
    return FAILURES if any(finding.level == "missing" for finding in findings) else 0
