"""What ``plan`` and ``status`` show: the cells of a study and how far each is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from study import schema
from study.cost import CostModel, expected_passes
from study.home import Home
from study.plan import Plan, Trial
from study.progress import duration
from study.resources import device_hours
from study.store import has_records, open_client, search
from study.tracking import finished_keys
from trainables.errors import StoreError, unknown


@dataclass
class PlanRow:
    """One row of a plan's overview; counts are of trials."""

    study: str
    row: str
    label: str
    trials: int
    finished: int
    shared: int
    left: int
    trunk_passes: float
    seconds_left: float


@dataclass
class PlanOverview:
    """Plans held against the records.

    Attributes:
        studies: their ids.
        profile: of all of them.
        seeds: of the first.
        named: trials the rows name, shared ones counted each time.
        distinct: trials there are.
        finished: of them, recorded whole.
        left: of them, to be trained.
        trunk_passes: expected of the distinct trials.
        passes_saved: expected of the others, which are not trained again.
        seconds: estimated training time of what is left, on one worker.
        wall_seconds: the same on ``workers`` workers.
        measured: whether the estimate rests on recorded trials of the same kind.
        rows: row by row; ``shared`` counts the trials an earlier row has.
    """

    studies: list[str]
    profile: str
    seeds: list[int]
    named: int
    distinct: int
    finished: int
    left: int
    trunk_passes: float
    passes_saved: float
    seconds: float
    wall_seconds: float
    workers: int
    measured: bool
    rows: list[PlanRow] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def print(self, console: Console) -> None:
        """As a table: a line per row, or per study where there are several."""
        several = len(self.studies) > 1
        title = f"{', '.join(self.studies)} at profile {self.profile}, seeds {self.seeds}"
        table = Table(title=title, title_justify="left")
        table.add_column("study" if several else "row", min_width=14)
        for name in ("trials", "finished", "shared", "left", "trunk passes", "time left"):
            table.add_column(name, justify="right")
        groups = [[row for row in self.rows if row.study == study] for study in self.studies]
        lines = [(group[0].study, group) for group in groups] if several else [(row.label, [row]) for row in self.rows]
        for label, group in lines:
            table.add_row(
                label,
                *(str(sum(getattr(row, name) for row in group)) for name in ("trials", "finished", "shared", "left")),
                f"{sum(row.trunk_passes for row in group):,.0f}",
                duration(sum(row.seconds_left for row in group)),
            )
        console.print(table)
        basis = "from recorded trials" if self.measured else "rough: not every kind of trial is recorded yet"
        text = (
            f"{self.named} trials named, {self.distinct} distinct, {self.finished} finished, {self.left} left; "
            f"about {duration(self.wall_seconds)} on {self.workers} workers ({basis})"
        )
        if self.passes_saved:
            text += f"\n{self.trunk_passes:,.0f} trunk passes, {self.passes_saved:,.0f} saved by sharing trials"
        console.print(text, highlight=False, soft_wrap=True)


def plan_overview(plans: Sequence[Plan], home: Home, workers: int) -> PlanOverview:
    """Hold ``plans`` against the records of ``home``, which need not exist."""
    client = open_client(home) if has_records(home) else None
    finished = finished_keys(client) if client else set()
    costs = CostModel(client)
    distinct: dict[str, Trial] = {}
    passes: dict[str, float] = {}
    shared: list[str] = []
    rows = []
    for plan in plans:
        for row in plan.rows:
            own = [trial for trial in row.trials if trial.key not in distinct]
            shared += [trial.key for trial in row.trials if trial.key in distinct]
            distinct.update({trial.key: trial for trial in own})
            passes.update({trial.key: expected_passes(trial.config) for trial in own})
            left = [trial for trial in own if trial.key not in finished]
            rows.append(
                PlanRow(
                    study=plan.spec.id,
                    row=row.id,
                    label=row.label,
                    trials=len(row.trials),
                    finished=sum(trial.key in finished for trial in row.trials),
                    shared=len(row.trials) - len(own),
                    left=len(left),
                    trunk_passes=sum(passes[trial.key] for trial in row.trials),
                    seconds_left=costs.estimate(left).seconds,
                )
            )
    to_train = [trial for key, trial in distinct.items() if key not in finished]
    estimate = costs.estimate(to_train)
    return PlanOverview(
        studies=[plan.spec.id for plan in plans],
        profile=plans[0].profile,
        seeds=list(plans[0].seeds),
        named=sum(plan.named for plan in plans),
        distinct=len(distinct),
        finished=len(distinct) - len(to_train),
        left=len(to_train),
        trunk_passes=sum(passes.values()),
        passes_saved=sum((passes[key] for key in shared), 0.0),
        seconds=estimate.seconds,
        wall_seconds=estimate.seconds / max(1, min(workers, len(to_train) or 1)),
        workers=workers,
        measured=estimate.measured,
        rows=rows,
    )


@dataclass
class TrialState:
    """A trial as the records have it; ``missing`` where they have nothing."""

    row: str
    trial_key: str
    seed: int
    tasks: list[str]
    state: str
    reason: str = ""
    seconds: float = 0.0
    iterations: float = 0.0
    unit: str = ""
    """``GPU-hours`` or ``core-hours``; empty where nothing is recorded."""
    hours: float = 0.0
    """Of the devices, by the share of one that the trial held: its cost."""
    host: str = ""
    """Where it trains or trained."""
    seconds_left: float = 0.0
    """Expected; of a trial that is neither finished nor has failed."""


@dataclass
class StatusOverview:
    """A recorded study, trial by trial.

    Attributes:
        study: its id.
        profile: that it is recorded at.
        state: of its newest run.
        counts: of trials by their state.
        trials: all of them.
        hours: what all of them took, by unit.
        seconds_left: expected training time of what is left.
        expected_end: when that is done if as many trials train as do now, as an ISO time; ``None`` where nothing is
            left, nothing trains, or no finished trial tells how long one takes.
    """

    study: str
    profile: str
    state: str
    counts: dict[str, int]
    trials: list[TrialState]
    hours: dict[str, float] = field(default_factory=dict)
    seconds_left: float = 0.0
    expected_end: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def print(self, console: Console) -> None:
        """A line per row, and why trials failed."""
        table = Table(title=f"{self.study} at profile {self.profile}: {self.state}", title_justify="left")
        unit = next(iter(self.hours)) if len(self.hours) == 1 else "device-hours"
        for name in ("row", "trials", "states", "seconds", unit, "a trial"):
            table.add_column(name, justify="left" if name in {"row", "states"} else "right")
        for label in dict.fromkeys(trial.row for trial in self.trials):
            own = [trial for trial in self.trials if trial.row == label]
            states = Counter(trial.state for trial in own)
            shown = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            hours = sum(trial.hours for trial in own)
            paid = sum(trial.hours > 0 for trial in own)
            seconds = f"{sum(trial.seconds for trial in own):.1f}"
            table.add_row(label, str(len(own)), shown, seconds, _hours(hours), _hours(hours / paid) if paid else "")
        console.print(table)
        if self.hours:
            total = ", ".join(f"{_hours(hours)} {name}" for name, hours in self.hours.items())
            console.print(f"cost so far: {total}", highlight=False)
        running = Counter(trial.host for trial in self.trials if trial.state == schema.RUNNING)
        if running:
            hosts = ", ".join(f"{count} on {host}" for host, count in sorted(running.items()))
            console.print(f"training now: {hosts}", highlight=False, soft_wrap=True)
        if self.expected_end is not None:
            left = duration(self.seconds_left)
            console.print(f"expected end: {self.expected_end} ({left} of training left)", highlight=False)
        for trial in self.trials:
            if trial.reason:
                console.print(
                    f"{trial.row}, seed {trial.seed}: {trial.state}: {trial.reason}", highlight=False, soft_wrap=True
                )


def status_overview(home: Home, study: str, profile: str | None) -> StatusOverview:
    """How far the newest recorded plan of a study is.

    Raises:
        StoreError: there are no records, or none of this study and profile.
    """
    client = open_client(home)
    parents = list(search(client, f"tags.{schema.KIND} = '{schema.STUDY_RUN}'"))
    names = {run.data.tags[schema.STUDY] for run in parents}
    if study not in names:
        raise StoreError(f"{home.path}: no records of it: {unknown('study', study, names)}")
    of_study = [run for run in parents if run.data.tags[schema.STUDY] == study]
    chosen = [run for run in of_study if profile in (None, run.data.tags[schema.PROFILE])]
    if not chosen:
        allowed = {run.data.tags[schema.PROFILE] for run in of_study}
        raise StoreError(
            f"{home.path}: {study} is not recorded at that profile: {unknown('profile', profile, allowed)}"
        )
    parent = max(chosen, key=lambda run: run.info.end_time or run.info.start_time)
    plan = json.loads(Path(client.download_artifacts(parent.info.run_id, schema.PLAN_FILE)).read_text(encoding="utf-8"))
    newest: dict[str, Any] = {}
    for run in search(client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'"):
        key = run.data.tags[schema.TRIAL_KEY]
        if newest.get(key) is None or newest[key].data.tags[schema.STATUS] != schema.COMPLETE:
            newest[key] = run
    trials = [
        _trial_state(row["label"], cell, newest.get(cell["trial_key"])) for row in plan["rows"] for cell in row["cells"]
    ]
    hours: dict[str, float] = {}
    for trial in {trial.trial_key: trial for trial in trials if trial.hours}.values():
        hours[trial.unit] = hours.get(trial.unit, 0.0) + trial.hours
    seconds_left, end = _expect(trials)
    return StatusOverview(
        study=study,
        profile=plan["profile"],
        state=parent.data.tags[schema.STATUS],
        counts=dict(Counter(trial.state for trial in trials)),
        trials=trials,
        hours=hours,
        seconds_left=seconds_left,
        expected_end=end,
    )


def _hours(value: float) -> str:
    return "< 0.001" if 0 < value < 0.001 else f"{value:.3g}"


def _trial_state(row: str, cell: dict[str, Any], found: Any) -> TrialState:
    state = TrialState(row, cell["trial_key"], cell["seed"], cell["tasks"], "missing")
    if found is None:
        return state
    tags, metrics = found.data.tags, found.data.metrics
    seconds = metrics.get(schema.cost("seconds"), 0.0)
    unit, hours = device_hours(seconds, tags)
    return replace(
        state,
        state=tags[schema.STATUS],
        reason=tags.get(schema.STATUS_REASON, ""),
        seconds=seconds,
        iterations=metrics.get(schema.cost("iterations"), 0.0),
        unit=unit,
        hours=hours,
        host=tags.get(schema.HOST, ""),
    )


def _expect(trials: Sequence[TrialState], now: datetime | None = None) -> tuple[float, str | None]:
    """Writes into trials what they have left, by the finished ones of their row, or of all; returns the sum, and when
    it is done by as many at a time as train now."""
    took = [trial for trial in trials if trial.state == schema.COMPLETE and trial.seconds > 0]
    left = {t.trial_key: t for t in trials if t.state in (schema.RUNNING, schema.INTERRUPTED, "missing")}
    if not took or not left:
        return 0.0, None
    for trial in left.values():
        of_row = [one.seconds for one in took if one.row == trial.row and len(one.tasks) == len(trial.tasks)]
        trial.seconds_left = max(0.0, median(of_row or [one.seconds for one in took]) - trial.seconds)
    seconds = sum(trial.seconds_left for trial in left.values())
    running = [trial.seconds_left for trial in left.values() if trial.state == schema.RUNNING]
    if not running:
        return seconds, None
    # No sooner than the longest of those that train: it does not go faster for others having ended.
    wall = max(seconds / len(running), *running)
    end = (now or datetime.now().astimezone()) + timedelta(seconds=wall)
    return seconds, end.isoformat(timespec="minutes")
