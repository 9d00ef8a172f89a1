"""One contender's search: an Optuna study that is asked for trials and told how they went. It trains nothing, so that
any executor can."""

from __future__ import annotations

import json
import math
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search_spaces import Point, suggest, to_optuna, to_params
from study import schema
from study.cost import expected_passes
from study.plan import Trial
from study.search.entries import (
    DELTA_M,
    ORDINAL,
    PASSES,
    POINT,
    REASON,
    REPEATS,
    RUN_ID,
    SECONDS,
    STATUS,
    TRIAL_KEY,
    Decision,
    Lookup,
    Open,
    Past,
)
from study.search.objective import Objective
from study.search.plan import PlannedContender
from study.search.queue import Queue
from study.search.samplers import make_pruner, make_sampler
from study.search.spec import SearchSpec
from study.search.verdict import Referee
from trainables.errors import ConfigError
from trainables.history import Point as CurvePoint
from trainables.session import Report

_MOST_REPEATS = 50
"""Proposals in a row that bring nothing new, after which a search is through: its space is exhausted."""


class Contest:
    """One contender's Optuna study.

    Made from a storage that holds an earlier part of it, it goes on where that ended: trials that were running are
    given out again under their old numbers, those that were not fully asked for are dropped.

    Args:
        contender: what is tuned.
        spec: sampler, pruner, budget.
        storage: Optuna's.
        objective: turns metrics into values.
        lookup: finds trials that need not be trained.
    """

    pauses = False
    """Whether trials are paused, for which they leave a checkpoint at every evaluation."""

    def __init__(
        self,
        contender: PlannedContender,
        spec: SearchSpec,
        storage: optuna.storages.BaseStorage,
        objective: Objective,
        lookup: Lookup,
    ) -> None:
        self.contender = contender
        self.objective = objective
        self._spec = spec
        self._lookup = lookup
        self._study = optuna.create_study(
            study_name=contender.study,
            storage=storage,
            directions=list(objective.directions),
            pruner=make_pruner(spec.pruner, spec.evaluations, 0),
            sampler=make_sampler(spec.sampler, 0),
            load_if_exists=True,
        )
        if len(objective.names) > 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._study.set_metric_names(list(objective.names))
        self._queue = Queue(self._study, contender, spec)
        self._referee = Referee(self._study)
        self._open: dict[str, Open] = {}
        self._resumed: deque[Trial] = deque()
        self.exhausted = False
        self._queue.begin()
        self._recover()

    # ---- what there is ---------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """Optuna's trials that were fully asked for, by number."""
        every = self._study.get_trials(deepcopy=False)
        return [trial for trial in every if ORDINAL in trial.user_attrs]

    @property
    def running(self) -> int:
        """Trials given out and not ended."""
        return len(self._open) - len(self._resumed)

    def spent(self, name: str) -> float:
        """``trials``, ``trunk_passes`` or ``seconds`` used; a running trial counts as it is expected to end."""
        trials = self.trials()
        if name == "trials":
            return float(len(trials))
        done = sum(float(trial.user_attrs.get(name, 0.0)) for trial in trials)
        if name == PASSES:
            done += sum(expected_passes(entry.trial.config) for entry in self._open.values())
        return done

    def share_spent(self) -> float:
        """The larger share of the budget's limits that is used, 1 where the search is through."""
        if self.exhausted:
            return 1.0
        budget = self._spec.budget
        shares = [self.spent(PASSES) / budget.trunk_passes] if budget.trunk_passes else []
        if budget.trials:
            shares.append(self.spent("trials") / budget.trials)
        return min(1.0, max(shares))

    def best(self) -> FrozenTrial | None:
        """The whole trial of the highest Delta_m on the validation split, the earlier of equals."""
        whole = [
            trial
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if trial.user_attrs.get(STATUS) != schema.DIVERGED and DELTA_M in trial.user_attrs
        ]
        return max(whole, key=lambda trial: (trial.user_attrs[DELTA_M], -trial.number), default=None)

    def winner(self) -> Point | None:
        """The best trial's point."""
        best = self.best()
        return json.loads(best.user_attrs[POINT]) if best is not None else None

    # ---- asking ----------------------------------------------------------------------------------

    def next(self) -> Trial | None:
        """The next trial to train; ``None`` where the budget is spent, the space exhausted, or nothing new turns up
        while others run."""
        if self._resumed:
            return self._resumed.popleft()
        for _ in range(_MOST_REPEATS):
            if self.share_spent() >= 1.0:
                return None
            trial = self._propose()
            if trial is not None:
                return trial
            if self.exhausted:
                return None
        if not self._open:
            self.exhausted = True
        return None

    def postpone(self, trial: Trial) -> None:
        """Have a trial that was given out given out again later: another driver has it."""
        self._resumed.append(trial)

    def found(self, trial: Trial) -> bool:
        """Whether the records hold a trial by now that was given out; it is over then."""
        return self._settled(self._open[trial.key])

    def _propose(self) -> Trial | None:
        """Ask the sampler once; ``None`` where its answer needs no training, or is none."""
        if not self._queue.follow():
            self.exhausted = True
            return None
        ordinal = len(self.trials())
        repeats = sum(int(trial.user_attrs.get(REPEATS, 0)) for trial in self.trials())
        self._study.sampler = make_sampler(self._spec.sampler, ordinal + repeats)
        self._study.pruner = make_pruner(self._spec.pruner, self._spec.evaluations, ordinal)
        asked = self._study.ask()
        point = self.contender.space.sample_with(lambda axis: suggest(asked, axis), self.contender.base)
        try:
            trial = self.contender.trial(point, asked.number)
        except ConfigError as error:
            # Two axes whose values do not go together. The space's check has found each of them possible.
            self._label(asked, ordinal, point, key="")
            asked.set_user_attr(REASON, str(error))
            self._study.tell(asked, state=TrialState.FAIL)
            return None
        if trial.key in self._open:
            # Proposed while its twin is running: nothing to learn from it, and no trial of the budget.
            asked.set_user_attr(REASON, f"the same as trial {self._open[trial.key].optuna.number}")
            self._study.tell(asked, state=TrialState.FAIL)
            self._count_repeat(trial.key)
            return None
        self._label(asked, ordinal, point, trial.key)
        entry = self._open[trial.key] = Open(trial, asked, set())
        if self._settled(entry):
            return None
        return trial

    def _label(self, asked: optuna.Trial, ordinal: int, point: Point, key: str) -> None:
        asked.set_user_attr(POINT, json.dumps(point))
        asked.set_user_attr(TRIAL_KEY, key)
        asked.set_user_attr(ORDINAL, ordinal)

    def _count_repeat(self, key: str) -> None:
        # The next proposal needs other draws, and the same ones after a restart.
        twin = self._open[key].optuna
        twin.set_user_attr(REPEATS, int(twin.user_attrs.get(REPEATS, 0)) + 1)

    def _settled(self, entry: Open) -> bool:
        """Whether the trial was made before, here or in any study, so that its outcome is known."""
        for earlier in self.trials():
            same = earlier.user_attrs.get(TRIAL_KEY) == entry.trial.key and earlier.number != entry.optuna.number
            if same and earlier.state in (TrialState.COMPLETE, TrialState.PRUNED):
                self._repeat(entry, earlier)
                return True
        past = self._lookup(entry.trial.key)
        if past is None:
            return False
        entry.run_id, entry.costs = past.run_id, past.costs()
        if past.status == schema.DIVERGED:
            self._diverged(entry, past.reason)
        elif past.status == schema.PRUNED:
            if not entry.reported:
                return False  # another search stopped it, at what it knew
            entry.judgement = self.objective.judge(past.metrics, entry.costs, int(entry.costs.get("iterations", 0)))
            self._end(entry, schema.PRUNED, past.reason)
        else:
            judgement = self.objective.judge(past.metrics, entry.costs, int(entry.costs.get("iterations", 0)))
            if judgement is None:
                return False
            entry.judgement = judgement
            self._end(entry, past.status, "")
        return True

    def _repeat(self, entry: Open, earlier: FrozenTrial) -> None:
        """Give a trial the outcome of its twin; it cost nothing."""
        for step, value in earlier.intermediate_values.items():
            entry.optuna.report(value, step)
        for name in (STATUS, REASON, DELTA_M, RUN_ID):
            if name in earlier.user_attrs:
                entry.optuna.set_user_attr(name, earlier.user_attrs[name])
        del self._open[entry.trial.key]
        if earlier.state is TrialState.PRUNED:
            self._study.tell(entry.optuna, state=TrialState.PRUNED)
        else:
            self._study.tell(entry.optuna, list(earlier.values or ()))

    # ---- being told ------------------------------------------------------------------------------

    def take(self, report: Report) -> tuple[Decision, list[CurvePoint]]:
        """Take in a report of a running trial.

        Returns:
            What becomes of the trial, and what its judgements add to the records.
        """
        entry = self._open[report.key]
        entry.costs = dict(report.costs)
        for point in report.points:
            if point.name.startswith(f"{schema.VAL}/"):
                entry.metrics.setdefault(point.step, {})[point.name] = point.value
        curve, judged = [], False
        for number, step in enumerate(sorted(entry.metrics), start=1):
            if step <= entry.seen:
                continue
            entry.seen = step
            judgement = self.objective.judge(entry.metrics[step], entry.costs, step)
            if judgement is None:
                continue
            entry.judgement, judged = judgement, True
            if number not in entry.reported:  # else a run before this one did
                entry.reported.add(number)
                if len(judgement.values) == 1:
                    entry.optuna.report(judgement.values[0], number)
            curve += [
                CurvePoint(f"{schema.OBJECTIVE}/{name}", step, value)
                for name, value in zip(self.objective.names, judgement.values, strict=True)
            ]
        prunable = judged and not report.over and len(self.objective.names) == 1
        return (Decision.STOP if prunable and self._referee.stops(entry) else Decision.GO), curve

    def finish(self, report: Report, run_id: str) -> None:
        """A trial's last report is recorded."""
        entry = self._open[report.key]
        entry.run_id = run_id
        if report.diverged:
            self._diverged(entry, report.diverged)
        elif entry.judgement is None:
            self._end(entry, schema.FAILED, "a metric on the validation split is no finite number")
        else:
            self._end(entry, schema.VALIDATED, "")

    def stop(self, key: str, run_id: str) -> str:
        """A trial was stopped by the pruner and is recorded so. Returns why, in one line."""
        entry = self._open[key]
        entry.run_id = run_id
        reason = self.why_stopped(key)
        self._end(entry, schema.PRUNED, reason)
        return reason

    def why_stopped(self, key: str) -> str:
        """The verdict on a running trial in words."""
        entry = self._open[key]
        value = entry.judgement.delta_m if entry.judgement else math.nan
        return f"stopped at evaluation {len(entry.reported)}: Delta_m {value:+.2f} % on validation"

    def fail(self, key: str, reason: str) -> None:
        """A trial failed, after its retries."""
        self._end(self._open[key], schema.FAILED, reason)

    def replaced(self) -> list[tuple[str, str, str]]:
        """Trials that ended since the last call while they were paused: key, run, and why. Nothing here pauses one."""
        return []

    def release(self, key: str) -> None:
        """A trial was interrupted; it stays running in the storage and is given out again by the next run."""
        del self._open[key]

    def _diverged(self, entry: Open, reason: str) -> None:
        values = self.objective.worst(entry.trial.config, entry.costs)
        if len(values) == 1:
            # Optuna takes a stopped trial's last value for its worth. No trial's is lower.
            seen = (value for trial in self.trials() for value in trial.intermediate_values.values())
            values, own = (min([*values, *seen]),), self._frozen(entry.optuna.number)
            if own.last_step is None or own.intermediate_values[own.last_step] != values[0]:  # told before, then
                entry.optuna.report(values[0], (own.last_step or 0) + 1)
        self._end(entry, schema.DIVERGED, reason, values)

    def _end(self, entry: Open, status: str, reason: str, values: Sequence[float] | None = None) -> None:
        attributes: dict[str, Any] = {
            STATUS: status,
            RUN_ID: entry.run_id,
            PASSES: entry.costs.get("trunk_passes", 0.0) - entry.inherited.get("trunk_passes", 0.0),
            SECONDS: entry.costs.get("seconds", 0.0) - entry.inherited.get("seconds", 0.0),
        }
        if reason:
            attributes[REASON] = reason
        if entry.judgement is not None and status != schema.DIVERGED:
            attributes[DELTA_M] = entry.judgement.delta_m
        for name, value in attributes.items():
            entry.optuna.set_user_attr(name, value)
        self._open.pop(entry.trial.key, None)
        if status == schema.FAILED:
            self._study.tell(entry.optuna, state=TrialState.FAIL)
        elif status == schema.PRUNED or (status == schema.DIVERGED and len(self.objective.names) == 1):
            self._study.tell(entry.optuna, state=TrialState.PRUNED)
        else:
            told = values if values is not None else entry.judgement.values if entry.judgement else ()
            self._study.tell(entry.optuna, list(told))

    # ---- starting and going on -------------------------------------------------------------------

    def learn(self, config: Mapping[str, Any], past: Past) -> bool:
        """Tell the sampler of a finished trial of any study whose config fits (a warm start). It is no trial of the
        budget. Returns whether it fits and is new."""
        from search_spaces import point_of

        if any(trial.user_attrs.get(RUN_ID) == past.run_id for trial in self._study.get_trials(deepcopy=False)):
            return False
        point = point_of(self.contender.space, config, self.contender.base)
        judgement = self.objective.judge(past.metrics, past.costs(), int(past.costs().get("iterations", 0)))
        if point is None or judgement is None:
            return False
        self._study.add_trial(
            optuna.trial.create_trial(
                values=list(judgement.values),
                params=to_params(self.contender.space, point),
                distributions={path: to_optuna(self.contender.space[path]) for path in point},
                user_attrs={
                    POINT: json.dumps(point),
                    RUN_ID: past.run_id,
                    STATUS: past.status,
                    DELTA_M: judgement.delta_m,
                },
            )
        )
        return True

    def enqueue(self, values: Mapping[str, Any]) -> None:
        """Have a point tried before anything the sampler proposes; known ones are not tried again.

        Raises:
            ConfigError: it is not in the space.
        """
        self._queue.enqueue(values)

    def _recover(self) -> None:
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            again = optuna.Trial(self._study, frozen._trial_id)
            if ORDINAL not in frozen.user_attrs:
                fixed = frozen.system_attrs.get("fixed_params")
                again.set_user_attr(REASON, "its driver ended while it was asked for")
                self._study.tell(again, state=TrialState.FAIL)
                if fixed:
                    self._study.enqueue_trial(fixed)
                continue
            trial = self.contender.trial(json.loads(frozen.user_attrs[POINT]), frozen.number)
            entry = self._open[trial.key] = self._taken_up(trial, again)
            if not self._settled(entry):
                self._resumed.append(trial)

    def _taken_up(self, trial: Trial, again: optuna.Trial) -> Open:
        """An earlier driver's trial as its storage knows it."""
        return Open(trial, again, set(self._frozen(again.number).intermediate_values))

    def _frozen(self, number: int) -> FrozenTrial:
        return next(trial for trial in self._study.get_trials(deepcopy=False) if trial.number == number)
