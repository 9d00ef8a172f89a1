"""What ``plan`` and ``status`` show: the cells of a study and how far each is."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from study import schema
from study.cost import CostModel, expected_passes
from study.home import Home
from study.plan import Plan
from study.progress import duration
from study.tracking import finished_keys, open_client, search
from trainables.errors import StoreError, unknown


@dataclass
class PlanRow:
    """One row of a plan's overview; counts are of trials."""

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
    """A plan held against the records.

    Attributes:
        named: trials the rows name, shared ones counted each time.
        distinct: trials there are.
        finished: of them, recorded whole.
        left: of them, to be trained.
        seconds: estimated training time of what is left, on one worker.
        wall_seconds: the same on ``workers`` workers.
        measured: whether the estimate rests on recorded trials of the same kind.
    """

    study: str
    profile: str
    seeds: list[int]
    named: int
    distinct: int
    finished: int
    left: int
    seconds: float
    wall_seconds: float
    workers: int
    measured: bool
    rows: list[PlanRow] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def print(self, console: Console) -> None:
        """As a table."""
        table = Table(title=f"{self.study} at profile {self.profile}, seeds {self.seeds}", title_justify="left")
        for name in ("row", "trials", "finished", "shared", "left", "trunk passes", "time left"):
            table.add_column(name, justify="left" if name == "row" else "right")
        for row in self.rows:
            table.add_row(
                row.label,
                *(str(count) for count in (row.trials, row.finished, row.shared, row.left)),
                f"{row.trunk_passes:,.0f}",
                duration(row.seconds_left),
            )
        console.print(table)
        basis = "from recorded trials" if self.measured else "rough: no trial of this kind is recorded yet"
        console.print(
            f"{self.named} trials named, {self.distinct} distinct, {self.finished} finished, {self.left} left; "
            f"about {duration(self.wall_seconds)} on {self.workers} workers ({basis})",
            highlight=False,
            soft_wrap=True,
        )


def plan_overview(plan: Plan, home: Home, workers: int) -> PlanOverview:
    """Hold ``plan`` against the records of ``home``, which need not exist. ``shared`` counts a row's trials an
    earlier row has."""
    client = open_client(home) if home.database.exists() else None
    finished = finished_keys(client) if client else set()
    costs = CostModel(client)
    seen: set[str] = set()
    rows = []
    for row in plan.rows:
        own = [trial for trial in row.trials if trial.key not in seen]
        left = [trial for trial in own if trial.key not in finished]
        rows.append(
            PlanRow(
                row=row.id,
                label=row.label,
                trials=len(row.trials),
                finished=sum(trial.key in finished for trial in row.trials),
                shared=len(row.trials) - len(own),
                left=len(left),
                trunk_passes=sum(expected_passes(trial.config) for trial in row.trials),
                seconds_left=costs.estimate(left).seconds,
            )
        )
        seen.update(trial.key for trial in own)
    left_trials = [trial for trial in plan.trials if trial.key not in finished]
    estimate = costs.estimate(left_trials)
    return PlanOverview(
        study=plan.spec.id,
        profile=plan.profile,
        seeds=list(plan.seeds),
        named=plan.named,
        distinct=len(plan.trials),
        finished=len(plan.trials) - len(left_trials),
        left=len(left_trials),
        seconds=estimate.seconds,
        wall_seconds=estimate.seconds / max(1, min(workers, len(left_trials) or 1)),
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


@dataclass
class StatusOverview:
    """A recorded study, trial by trial."""

    study: str
    profile: str
    state: str
    counts: dict[str, int]
    trials: list[TrialState]

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def print(self, console: Console) -> None:
        """A line per row, and why trials failed."""
        table = Table(title=f"{self.study} at profile {self.profile}: {self.state}", title_justify="left")
        for name in ("row", "trials", "states", "seconds"):
            table.add_column(name, justify="right" if name in {"trials", "seconds"} else "left")
        for label in dict.fromkeys(trial.row for trial in self.trials):
            own = [trial for trial in self.trials if trial.row == label]
            states = Counter(trial.state for trial in own)
            shown = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            table.add_row(label, str(len(own)), shown, f"{sum(trial.seconds for trial in own):.1f}")
        console.print(table)
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
    trials = []
    for row in plan["rows"]:
        for cell in row["cells"]:
            found = newest.get(cell["trial_key"])
            trials.append(
                TrialState(
                    row=row["label"],
                    trial_key=cell["trial_key"],
                    seed=cell["seed"],
                    tasks=cell["tasks"],
                    state=found.data.tags[schema.STATUS] if found else "missing",
                    reason=found.data.tags.get(schema.STATUS_REASON, "") if found else "",
                    seconds=found.data.metrics.get(schema.cost("seconds"), 0.0) if found else 0.0,
                    iterations=found.data.metrics.get(schema.cost("iterations"), 0.0) if found else 0.0,
                )
            )
    return StatusOverview(
        study=study,
        profile=plan["profile"],
        state=parent.data.tags[schema.STATUS],
        counts=dict(Counter(trial.state for trial in trials)),
        trials=trials,
    )
