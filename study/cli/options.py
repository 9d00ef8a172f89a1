"""Options and words that several commands share."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from study.addresses import ARTIFACTS, CHECKPOINTS, NODE_DATA, TRACKING, without_password
from study.home import DEFAULT, VARIABLE, Home
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from study.executors import ExecutorSettings
    from study.plan import Plan

FAILURES = 1
USER_ERROR = 2
INTERRUPTED = 130

FORMATS = ("text", "markdown", "latex", "csv", "json")


def example(*lines: str) -> str:
    """The end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def options(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Several options as one decorator."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class _Share(click.ParamType):
    """A positive number, or ``auto`` as ``None``."""

    name = "SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        if value == "auto":
            return None
        with suppress(ValueError):
            share = float(value)
            if math.isfinite(share) and share > 0:
                return share
        return self.fail(f"{value}: auto, or a number above 0, is wanted", param, ctx)


def _elsewhere(variable: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    """A callback that has the option's value stand for the variable as long as the command runs."""

    def callback(context: click.Context, option: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.with_resource(_set(variable, without_password(value, option.opts[0], variable)))

    return callback


@contextmanager
def _set(variable: str, value: str) -> Iterator[None]:
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
home_option = options(
    click.option(
        "--home", type=click.Path(path_type=Path), help=f"Folder of all state (else ${VARIABLE}, else ./{DEFAULT})."
    ),
    click.option(
        "--tracking",
        metavar="URL",
        expose_value=False,
        callback=_elsewhere(TRACKING),
        help=f"Records in PostgreSQL or behind an MLflow server (else ${TRACKING}, else a file in the home).",
    ),
    click.option(
        "--artifacts",
        metavar="URL",
        expose_value=False,
        callback=_elsewhere(ARTIFACTS),
        help=f"Root of the records' artifacts, like s3://bucket/mtl (else ${ARTIFACTS}, else the home).",
    ),
    click.option(
        "--checkpoints",
        metavar="URL",
        expose_value=False,
        callback=_elsewhere(CHECKPOINTS),
        help=f"Root of the checkpoints, any URL of fsspec (else ${CHECKPOINTS}, else the home).",
    ),
    click.option(
        "--node-data",
        metavar="DIR",
        expose_value=False,
        callback=_elsewhere(NODE_DATA),
        help="Folder on every node, like '$TMPDIR/mtl', that built data is copied to once and read from "
        f"(else ${NODE_DATA}, else it is read from the home).",
    ),
)
profile_option = click.option("--profile", help="smoke, cpu, gpu or paper (default: the study's own).")
planning = options(
    click.argument("study"),
    profile_option,
    click.option("--seeds", type=click.IntRange(min=1), help="Number of replicates instead of the profile's."),
    click.option(
        "--set", "assignments", multiple=True, metavar="PATH=VALUE", help="Set a trial-config field in every trial."
    ),
    home_option,
)
running_options = options(
    click.option("--executor", default="ray", show_default=True, help="ray, or local for plain worker processes."),
    click.option(
        "--cluster",
        default="local",
        show_default=True,
        help="Where Ray runs: local starts it here, HOST:PORT joins that head's cluster, auto the one of $RAY_ADDRESS "
        "or of this machine.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Trials at a time (default: as many as have cores for their threads, and memory; all of a cluster).",
    ),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    click.option(
        "--gpus-per-trial",
        type=_Share(),
        default="auto",
        show_default=True,
        help="Share of a GPU, like 0.25, or how many train each trial together; auto measures the memory of each kind "
        "of trial by two steps.",
    ),
    click.option(
        "--processes",
        type=click.IntRange(min=1),
        help="Processes that train each trial together, each on its share of every batch and, on GPUs, on one of its "
        "own (default: the study's resources, else 1).",
    ),
    click.option(
        "--report-every",
        type=click.FloatRange(min=0.0),
        metavar="SECONDS",
        help="About how often a running trial reports (default: 5, or more where over 200 run at a time).",
    ),
    click.option(
        "--save-model",
        is_flag=True,
        help="Keep each trained network beside its run, as an MLflow model (of a search, those of its final table).",
    ),
    click.option("--quiet", is_flag=True, help="Print the table alone."),
)
format_option = click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
as_json_option = click.option("--json", "as_json", is_flag=True, help="The same as --format json.")


def print_json(value: Any) -> None:
    """To standard output."""
    click.echo(json.dumps(value, indent=2, default=str))


def screen() -> Console:
    """Standard output for tables; wide where it is no terminal, whose width would be a guess."""
    return Console(width=None if sys.stdout.isatty() else 160)


def assigned(items: tuple[str, ...]) -> dict[str, Any]:
    """``--set`` items as field path to value, names of components first; raises :class:`ConfigError` for one that is
    none."""
    from trainables.settings import parse_yaml

    out: dict[str, Any] = {}
    for item in items:
        path, equals, text = item.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {item}: PATH=VALUE is wanted, like --set optim.lr=1e-3")
        out[path] = parse_yaml(text, f"--set {path}")
    # A component's name first: it drops the fields of the component that was there before.
    return dict(sorted(out.items(), key=lambda item: (not item[0].endswith(".name"), item[0].count("."))))


def plans_of(study: str, profile: str | None, seeds: int | None, assignments: tuple[str, ...]) -> list[Plan]:
    """The plan of every study that ``study`` names."""
    from study.plan import make_plan
    from study.spec import load_spec

    fields = assigned(assignments)
    return [make_plan(load_spec(name), profile, seeds, fields) for name in studies(study)]


def studies(name: str) -> tuple[str, ...]:
    """A bundle's studies, or the one study."""
    from study.spec import studies_of

    return studies_of(name)


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def executor_settings(how: Mapping[str, Any]) -> ExecutorSettings:
    """What the running options say of workers, GPUs and cluster."""
    from study.executors import ExecutorSettings

    here = usable_cores() if how["cluster"] == "local" else 0
    share = how["gpus_per_trial"]
    return ExecutorSettings(
        workers=how["workers"] or here,
        gpus_per_trial=1.0 if share is None else share,
        processes=how["processes"] or 0,
        chunk_seconds=how["report_every"],
        cluster=how["cluster"],
        measure_gpus=share is None,
        measure_workers=not how["workers"],
        save_models=how["save_model"],
    )


def home_hint(home: Path | None) -> str:
    """``--home`` again, where it was given."""
    return f" --home {home}" if home else ""


def table_text(home: Home, study: str, profile: str | None, form: str) -> str:
    """A study's table, rendered."""
    from analysis.records import Records
    from analysis.render import render
    from analysis.tables import make_table

    return render(make_table(Records.load(home.path, study, profile)), form)


def write_study_report(home: Home, study: str, profile: str | None, mlflow_url: str | None = None) -> Path:
    """A study's report, its links leading to the MLflow UI at ``mlflow_url``; returns the file."""
    from analysis.claims import claims
    from analysis.records import Records
    from analysis.report import RunLinks, write_report

    links = RunLinks(mlflow_url) if mlflow_url else RunLinks()
    records = Records.load(home.path, study, profile)
    verdicts = claims(home.path, records.profile)
    return write_report(records, home.report(study, records.profile), verdicts=verdicts, links=links)


def show_report(home: Home, study: str, profile: str | None) -> Path:
    """Write a study's report and put it where readers of the MLflow UI find it, too; returns the file."""
    from study.front import put_report

    report = write_study_report(home, study, profile)
    put_report(home, study, report.stem.removeprefix(f"{study}-"), report)
    return report


def study_bibtex(home: Home, study: str, profile: str | None) -> str:
    """The papers of what a study compares."""
    from analysis.records import Records
    from analysis.report import bibtex

    return bibtex(Records.load(home.path, study, profile))
