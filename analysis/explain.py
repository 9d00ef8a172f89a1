"""What is known of one trial, cell or study: its config, where tables use it, how it went, what it cost."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from analysis.compare import difference, flat
from analysis.records import MISSING, is_complete, status_of
from analysis.run import Run
from analysis.subjects import STUDY, Directory, Subject, Use
from study import schema
from trainables.errors import StoreError, UserError

_COSTS = ("iterations", "trunk_passes", "seconds")

Shorten = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""A resolved config without what is default."""
BaseOf = Callable[[str, str], Mapping[str, Any] | None]
"""(study, profile) to the resolved config that its rows change; ``None`` where the study is not known here."""


@dataclass(frozen=True)
class Attempt:
    """One run of a trial.

    Attributes:
        run_id: MLflow's.
        trial_key: of the trial.
        study: that ran it.
        seed: of the trial.
        status: as :data:`study.schema.STATUS` has it.
        counts: whether tables read this one.
        reason: why it ended otherwise than complete.
        traceback: file with the traceback; empty for none.
        error: the traceback's last line.
        costs: iterations, trunk passes, seconds; absent where it reported none.
        where: device and host.
        commit: of the code.
    """

    run_id: str
    trial_key: str
    study: str
    seed: int
    status: str
    counts: bool
    reason: str
    traceback: str
    error: str
    costs: Mapping[str, float]
    where: str
    commit: str


@dataclass(frozen=True)
class Explanation:
    """What :func:`explain` finds.

    Attributes:
        kind: of subject: run, trial, cell, row or study.
        name: of it.
        trial_keys: of its trials.
        cell_keys: of its cells.
        status: number of trials by status.
        config: field path to value where it is not the default; of the first trial that ran, the seed aside where
            there are several.
        changes: study and profile to the fields that differ from that study's base: field path to (base, here).
        uses: places of tables.
        attempts: every run, oldest first.
        costs: of the runs that count, summed.
        wasted: seconds of the runs that do not count.
        repeat: commands that do it again.
    """

    kind: str
    name: str
    trial_keys: tuple[str, ...]
    cell_keys: tuple[str, ...]
    status: Mapping[str, int]
    config: Mapping[str, Any]
    changes: Mapping[str, Mapping[str, tuple[Any, Any]]]
    uses: Sequence[Use]
    attempts: Sequence[Attempt]
    costs: Mapping[str, float]
    wasted: float
    repeat: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def explain(
    directory: Directory, name: str, shorten: Shorten, base_of: BaseOf, *, home_option: str = ""
) -> Explanation:
    """All that the records say of ``name``.

    Args:
        directory: of the records.
        name: as :meth:`analysis.subjects.Directory.find` takes it.
        shorten: leaves out of a config what is default.
        base_of: the base config of a study.
        home_option: what commands to repeat it need to find the home.

    Raises:
        ConfigError: nothing is called so, or several things are.
    """
    subject = directory.find(name)
    uses = directory.uses(subject.keys)
    attempts = [attempt for key in subject.keys for attempt in _attempts(directory, subject, key)]
    config = _config(directory, subject)
    counted = [attempt for attempt in attempts if attempt.counts]
    statuses: dict[str, int] = {}
    for key in subject.keys:
        run = subject.chosen(key)
        status = status_of(run) if run else MISSING
        statuses[status] = statuses.get(status, 0) + 1
    return Explanation(
        kind=subject.kind,
        name=subject.name,
        trial_keys=subject.keys,
        cell_keys=tuple(dict.fromkeys(directory.cell_key(key) for key in subject.keys)),
        status=statuses,
        config=_short(config, shorten) if config else {},
        changes=_changes(config, uses, base_of) if config else {},
        uses=uses,
        attempts=attempts,
        costs={name: math.fsum(attempt.costs.get(name, 0.0) for attempt in counted) for name in _COSTS},
        wasted=math.fsum(attempt.costs.get("seconds", 0.0) for attempt in attempts if not attempt.counts),
        repeat=_repeat(directory, subject, uses, base_of, home_option),
    )


def _config(directory: Directory, subject: Subject) -> dict[str, Any] | None:
    config = None if subject.kind == STUDY else directory.any_config(subject)
    if config and len(subject.keys) > 1:
        config.pop("seed", None)
    return config


def _short(config: Mapping[str, Any], shorten: Shorten) -> dict[str, Any]:
    """Whole where this version refuses the config: better too much than nothing."""
    try:
        return flat(shorten(config))
    except UserError:
        return flat(config)


def _changes(config: Mapping[str, Any], uses: Sequence[Use], base_of: BaseOf) -> dict[str, dict[str, tuple[Any, Any]]]:
    out = {}
    for study, profile in dict.fromkeys((use.study, use.profile) for use in uses):
        base = base_of(study, profile)
        if base is not None:
            found = difference(base, config)
            out[f"{study}@{profile}"] = {path: values for path, values in found.items() if path != "seed"}
    return out


def _attempts(directory: Directory, subject: Subject, key: str) -> list[Attempt]:
    chosen = subject.chosen(key)
    runs = [run for run in subject.runs[key] if subject.run_id in ("", run.run_id)]
    return [_attempt(directory, key, run, counts=run is chosen and is_complete(run)) for run in runs]


def _attempt(directory: Directory, key: str, run: Run, *, counts: bool) -> Attempt:
    tags, metrics = run.tags, run.metrics
    traceback, error = _traceback(directory, run)
    commit = tags.get(schema.GIT_COMMIT, "")
    return Attempt(
        run_id=run.run_id,
        trial_key=key,
        study=tags.get(schema.STUDY, ""),
        seed=directory.seed(key),
        status=status_of(run),
        counts=counts,
        reason=" ".join(tags.get(schema.STATUS_REASON, "").split()),
        traceback=str(traceback or ""),
        error=error,
        costs={name: metrics[schema.cost(name)] for name in _COSTS if schema.cost(name) in metrics},
        where=" on ".join(each for each in (tags.get(schema.DEVICE, ""), tags.get(schema.HOST, "")) if each),
        commit=f"{commit[:12]}, changed" if tags.get(schema.GIT_DIRTY) == "true" else commit[:12],
    )


def _traceback(directory: Directory, run: Run) -> tuple[Path | None, str]:
    if run.tags.get(schema.STATUS) != schema.FAILED:
        return None, ""
    try:
        path = directory.store.artifact(run, schema.TRACEBACK_FILE)
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except (StoreError, OSError):
        return None, ""
    return path, next((line.strip() for line in reversed(lines) if line.strip()), "")


def _repeat(
    directory: Directory, subject: Subject, uses: Sequence[Use], base_of: BaseOf, home_option: str
) -> tuple[str, ...]:
    commands = []
    if len(subject.keys) == 1:
        run = subject.chosen(subject.keys[0])
        try:
            path = directory.store.artifact(run, schema.CONFIG_FILE) if run else None
        except StoreError:
            path = None
        if path is not None:
            commands.append(f"mtl-study trial {shlex.quote(str(path))}{home_option}")
    for study, profile in dict.fromkeys((use.study, use.profile) for use in uses):
        # One that does not come with the package is run by its file.
        named = study if base_of(study, profile) is not None else f"{study}.yaml"
        commands.append(f"mtl-study run {named} --profile {profile}{home_option}")
    return tuple(commands)
