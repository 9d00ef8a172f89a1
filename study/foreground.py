"""One trial, or one look at the data, in this process."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from search_spaces import apply
from study.home import Home
from study.progress import build_bar, duration
from study.runner import resolve_device
from trainables import checkpoint as checkpoints
from trainables.config import data_set_of, load_trial, trial_key
from trainables.data import DATA_SETS
from trainables.data.base import SPLITS, CheckResult
from trainables.data.sheet import NothingToShowError, contact_sheet
from trainables.errors import CheckpointError, ConfigError
from trainables.session import Session, TrialTask
from trainables.settings import component, read_yaml


def run_foreground(
    path: Path, overrides: Mapping[str, Any], checkpoint: Path | None, device: str, home: Home, *, as_json: bool
) -> int:
    """Train the trial a YAML file describes and print its metrics; returns the exit code (1 where it diverged).

    Raises:
        UserError: the file, the data or the checkpoint is not right.
    """
    raw = read_yaml(path)
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{path}: a mapping of trial-config fields is wanted")
    config = load_trial(apply(raw, overrides), str(path))
    key = trial_key(config)
    device = resolve_device(device)
    # One trial may say what it starts from; a study would say it once for each.
    logging.getLogger("trainables.models.weights").setLevel(logging.INFO)
    if checkpoint is not None and checkpoint.exists() and checkpoints.read_header(checkpoint).key != key:
        raise CheckpointError(f"{checkpoint}: is a checkpoint of another config than {path}")
    console = Console(stderr=True)
    home.require()
    with build_bar(console, f"building data set {config.data.name}") as progress:
        data_set_of(config).prepare(config.data, home.data, workers=1, progress=progress)
    task = TrialTask(key, config.to_dict(), str(home.data), str(checkpoint) if checkpoint else None, device, path.stem)
    session = Session(task)
    while True:
        report = session.advance(seconds=2.0)
        for point in report.points:
            if not point.name.startswith("test/"):
                console.print(f"{point.step:>7}  {point.name:<40} {point.value:.6g}", highlight=False)
        if report.over:
            break
    if checkpoint is not None:
        session.save()
    if report.diverged:
        click.echo(f"error: {report.diverged}", err=True)
        return 1
    final = {
        p.name: p.value
        for p in session.trainer.history.points
        if p.step == report.iteration and p.name.startswith(("val/", "test/"))
    }
    if as_json:
        click.echo(json.dumps({"trial_key": key, "metrics": final, "costs": report.costs}, indent=2))
    else:
        for name, value in final.items():
            click.echo(f"{name:<40} {value:.6g}")
        click.echo(f"{report.iteration} iterations in {duration(report.costs['seconds'])}, trial {key[:12]}")
    return 0


def show_data(
    name: str, overrides: Mapping[str, Any], split: str, count: int, out: Path | None, home: Home, workers: int
) -> Path:
    """Build the data set if need be and write its contact sheet; returns the file."""
    config = component(DATA_SETS, apply({"name": name}, overrides), "data")
    data_set = DATA_SETS[name]
    home.require()
    with build_bar(Console(stderr=True), f"building data set {name}") as progress:
        data_set.prepare(config, home.data, workers=workers, progress=progress)
    return contact_sheet(data_set, config, home.data, out or home.path / f"{name}.png", split=split, count=count)


def check_data(
    name: str, root: Path, overrides: Mapping[str, Any], out: Path | None, home: Home, workers: int
) -> tuple[CheckResult, Path | None]:
    """Read every file of the data set in ``root`` and write a contact sheet of the first samples; what was found, and
    the sheet's file (``None`` where none of them can be read).

    Raises:
        UserError: there is no such data set, it is not one of those that are brought, ``root`` is no folder of it, or
            the sheet cannot be written.
    """
    data_set = DATA_SETS[name]
    # One that is not found in a folder says so itself.
    given = {"root": str(root)} if "root" in data_set.Config.model_fields else {}
    config = component(DATA_SETS, apply({"name": name, **given}, overrides), "data")
    if out is None:
        out = home.path / f"{name}-check.png"
    with build_bar(Console(stderr=True), f"checking data set {name}") as progress:
        result = data_set.check(config, progress, workers=workers)
    read = {count.label for count in result.counts if count.found}
    wanted = [label for label in data_set.labels if label in read]
    lenient = component(DATA_SETS, {**config.to_dict(), "on_bad": "skip"}, "data")
    for split in SPLITS:
        try:
            return result, contact_sheet(data_set, lenient, home.data, out, split=split, wanted=wanted)
        except NothingToShowError:
            continue
    return result, None
