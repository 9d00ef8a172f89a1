"""Population based training of the learning-rate schedule, as trials like all others.

Source: Jaderberg et al., "Population Based Training of Neural Networks", 2017 (arXiv:1711.09846): members train in
parallel; at intervals the worst take over a good one's weights (exploit) and change its hyperparameters (explore).

Here a member that is replaced ends, and its place is taken by a new trial: the config of the one it takes over with
one more entry in ``optim.lr_steps``. That trial starts from the other's checkpoint, and because the two configs and
seeds agree up to there, it is the trial its config says, bit for bit: anyone who has the config can train it from
the beginning. What PBT finds is a schedule and not a run that nobody can repeat.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from search_spaces import Point, suggest, to_optuna, to_params
from study import schema
from study.plan import Trial
from study.search.contest import Contest
from study.search.entries import (
    DELTA_M,
    ORDINAL,
    POINT,
    REASON,
    RUN_ID,
    STATUS,
    TRIAL_KEY,
    Decision,
    Lookup,
    Open,
)
from study.search.objective import Objective
from study.search.plan import PlannedContender
from study.search.samplers import make_sampler
from study.search.spec import SearchSpec
from trainables.errors import ConfigError
from trainables.history import Point as CurvePoint
from trainables.seeding import derive
from trainables.session import Report

LR_STEPS = "optim.lr_steps"
FACTORS = (0.5, 0.8, 1.25, 2.0)
"""What exploring multiplies the learning rate with: near and far, to both sides."""
SHARE = 0.25
"""Of the members that are replaced at an evaluation, and of those that are taken over."""

CHILD_OF = "child_of"
"""Attribute of an Optuna trial: number of the trial it was started from."""

_STATE, _INHERITED, _COSTS, _PAUSED = "population", "inherited_costs", "costs_so_far", "paused_at"
_MOST_DRAWS = 10
"""Draws for each member of the first generation, in a space with few points."""

HandDown = Callable[[str, str], None]
"""(key of a trial, key of a trial that starts where it is): gives the second the first's checkpoint."""


class Population(Contest):
    """One contender's population; see :class:`study.search.contest.Contest`.

    Members differ at first in the axes of the space, which they then keep; what changes while they train is the
    learning rate. All of them reach an evaluation before any goes on.

    Args:
        contender: what is tuned.
        spec: sampler (``population``, ``seed``), evaluations.
        storage: Optuna's.
        objective: Delta_m.
        lookup: finds trials that need not be trained.
        hand_down: gives a new member the checkpoint it starts from.
    """

    pauses = True

    def __init__(
        self,
        contender: PlannedContender,
        spec: SearchSpec,
        storage: optuna.storages.BaseStorage,
        objective: Objective,
        lookup: Lookup,
        hand_down: HandDown,
    ) -> None:
        self._hand_down = hand_down
        self._given: set[str] = set()
        self._paused: dict[str, int] = {}
        self._replaced: list[tuple[str, str, str]] = []
        self._generation, self._members = 0, list[int]()
        super().__init__(contender, spec, storage, objective, lookup)

    def share_spent(self) -> float:
        """Generations that are through."""
        if self.exhausted:
            return 1.0
        budget = self._spec.budget.trunk_passes
        passes = self.spent("trunk_passes") / budget if budget and not self._open else 0.0
        return min(1.0, max(passes, max(0, self._generation - 1) / self._spec.evaluations))

    def next(self) -> Trial | None:
        """A member that has not reached the generation's evaluation; ``None`` while others are on their way there."""
        if not self._members:
            self._found()
        for number in self._members:
            entry = self._entry(number)
            if entry is not None and entry.trial.key not in self._given and not self._arrived(entry):
                self._given.add(entry.trial.key)
                return entry.trial
        return None

    def postpone(self, trial: Trial) -> None:
        """Have a trial given out again later."""
        self._given.discard(trial.key)

    def take(self, report: Report) -> tuple[Decision, list[CurvePoint]]:
        """As :meth:`Contest.take`; a member pauses at its generation's evaluation."""
        _, curve = super().take(report)
        arrived = not report.over and self._generation in self._open[report.key].reported
        return (Decision.PAUSE if arrived else Decision.GO), curve

    def pause(self, key: str, run_id: str) -> None:
        """A member has reached the evaluation, left its checkpoint and is recorded so far."""
        entry = self._open[key]
        entry.run_id = run_id
        entry.optuna.set_user_attr(RUN_ID, run_id)
        if entry.judgement is not None:
            entry.optuna.set_user_attr(DELTA_M, entry.judgement.delta_m)
        entry.optuna.set_user_attr(_COSTS, entry.costs)
        entry.optuna.set_user_attr(_PAUSED, self._generation)
        self._paused[key] = self._generation
        self._given.discard(key)
        self._proceed()

    def replaced(self) -> list[tuple[str, str, str]]:
        """Members that were replaced since the last call: key, run, and by whom."""
        found, self._replaced = self._replaced, []
        return found

    def release(self, key: str) -> None:
        """A trial was interrupted; it is given out again by the next run."""
        self._given.discard(key)

    def _end(self, entry: Open, status: str, reason: str, values: Any = None) -> None:
        super()._end(entry, status, reason, values)
        self._given.discard(entry.trial.key)
        if status != schema.PRUNED:
            self._proceed()

    # ---- generations -----------------------------------------------------------------------------

    def _arrived(self, entry: Open) -> bool:
        return self._paused.get(entry.trial.key, 0) >= self._generation

    def _entry(self, number: int) -> Open | None:
        return next((entry for entry in self._open.values() if entry.optuna.number == number), None)

    def _proceed(self) -> None:
        """Go on to the next generation once every member has arrived or ended."""
        entries = [self._entry(number) for number in self._members]
        if not self._members or any(entry is not None and not self._arrived(entry) for entry in entries):
            return
        if self._generation >= self._spec.evaluations or all(entry is None for entry in entries):
            self.exhausted = True
            return
        members = self._explored()
        self._generation += 1
        self._set_members(members)

    def _explored(self) -> list[int]:
        """The next generation's members: the worst replaced by changed copies of the best."""
        draws = random.Random(derive(self._spec.sampler.seed, "explore", self.contender.study, self._generation))
        scores = {number: self._score(number) for number in self._members}
        ranked = sorted(self._members, key=lambda number: scores[number], reverse=True)
        share = max(1, round(SHARE * len(ranked)))
        alive = [number for number in ranked if self._entry(number) is not None]
        gone = [number for number in ranked if self._entry(number) is None]
        replaced = {*gone, *ranked[-share:]} - set(alive[:1])
        best = [number for number in alive[:share] if number not in replaced] or alive[:1]
        members = []
        for number in self._members:
            if number not in replaced:
                members.append(number)
                continue
            parent = self._entry(draws.choice(best))
            if parent is None:
                raise RuntimeError("a member of the best has ended")
            members.append(self._child(parent, draws))
            entry = self._entry(number)
            if entry is not None:
                reason = f"replaced by trial {members[-1]} at evaluation {self._generation}"
                self._replaced.append((entry.trial.key, entry.run_id, reason))
                self._end(entry, schema.PRUNED, reason)
        return members

    def _score(self, number: int) -> float:
        trial = self._frozen(number)
        gone = trial.state.is_finished()
        return -math.inf if gone else trial.intermediate_values.get(self._generation, -math.inf)

    def _set_members(self, members: list[int]) -> None:
        self._members = members
        # One write: a driver that ends before it makes the same children again, from the same draws.
        self._study.set_user_attr(_STATE, {"generation": self._generation, "members": members})

    # ---- members ---------------------------------------------------------------------------------

    def _found(self) -> None:
        """The first generation: the defaults, and points drawn at random; fewer where the space has no more."""
        members = sorted(entry.optuna.number for entry in self._open.values())
        for ordinal in range(len(members), _MOST_DRAWS * self._spec.sampler.population):
            if len(members) == self._spec.sampler.population:
                break
            self._study.sampler = make_sampler(self._spec.sampler, ordinal)
            number = self._drawn(self._study.ask())
            if number is not None:
                members.append(number)
        self._generation = 1
        self._set_members(members)

    def _drawn(self, asked: optuna.Trial) -> int | None:
        point = self.contender.space.sample_with(lambda axis: suggest(asked, axis), self.contender.base)
        try:
            trial = self.contender.trial(point, asked.number)
        except ConfigError as error:
            why = str(error)
        else:
            if trial.key not in self._open:
                self._label(asked, len(self.trials()), point, trial.key)
                self._open[trial.key] = Open(trial, asked, set())
                return asked.number
            why = "a member has this point"
        asked.set_user_attr(REASON, why)
        self._study.tell(asked, state=TrialState.FAIL)
        return None

    def _child(self, parent: Open, draws: random.Random) -> int:
        point: Point = json.loads(parent.optuna.user_attrs[POINT])
        steps = [list(step) for step in point.get(LR_STEPS, [])]
        last = steps[-1][1] if steps else 1.0
        iteration = int(parent.costs["iterations"])
        for factor in (*draws.sample(FACTORS, len(FACTORS)), *(draws.uniform(0.25, 4.0) for _ in self._members)):
            changed = {**point, LR_STEPS: [*steps, [iteration, float(f"{last * factor:.6g}")]]}
            if self.contender.trial(changed).key not in self._open:  # a sibling may have had the same idea
                break
        known = {path: value for path, value in point.items() if path in self.contender.space}
        number = len(self._study.get_trials(deepcopy=False))
        trial = self.contender.trial(changed, number)
        # Made in one write, so that there is no half of a child after a crash.
        self._study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=to_params(self.contender.space, known),
                distributions={path: to_optuna(self.contender.space[path]) for path in known},
                user_attrs={
                    POINT: json.dumps(changed),
                    TRIAL_KEY: trial.key,
                    ORDINAL: len(self.trials()),
                    CHILD_OF: parent.optuna.number,
                    _INHERITED: dict(parent.costs),
                    _PAUSED: self._generation,
                },
            )
        )
        entry = Open(trial, optuna.Trial(self._study, self._frozen(number)._trial_id), set())
        entry.inherited = dict(parent.costs)
        self._open[trial.key] = entry
        self._paused[trial.key] = self._generation
        self._hand_down(parent.trial.key, trial.key)
        return number

    def _recover(self) -> None:
        state: Mapping[str, Any] = self._study.user_attrs.get(_STATE, {})
        self._generation, self._members = state.get("generation", 0), list(state.get("members", []))
        super()._recover()
        self._resumed.clear()
        for entry in list(self._open.values()):
            if self._members and entry.optuna.number not in self._members:
                del self._open[entry.trial.key]
                self._drop(entry)
        if self._members:
            self._proceed()

    def _taken_up(self, trial: Trial, again: optuna.Trial) -> Open:
        entry, attributes = super()._taken_up(trial, again), again.user_attrs
        entry.inherited, entry.costs = dict(attributes.get(_INHERITED, {})), dict(attributes.get(_COSTS, {}))
        entry.run_id = attributes.get(RUN_ID, "")
        self._paused[trial.key] = attributes.get(_PAUSED, 0)
        return entry

    def _drop(self, entry: Open) -> None:
        """A child of a generation that was never written down; it will be made again."""
        entry.optuna.set_user_attr(STATUS, schema.FAILED)
        entry.optuna.set_user_attr(REASON, "its driver ended while the generation was made")
        self._study.tell(entry.optuna, state=TrialState.FAIL)
