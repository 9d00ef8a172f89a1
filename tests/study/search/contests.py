"""A search whose trials are made up, so that what surrounds them can be tested in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import optuna

from analysis.delta_m import delta_m
from study import schema
from study.plan import Trial
from study.search.contest import Contest
from study.search.entries import Decision, Lookup
from study.search.objective import Objective
from study.search.plan import SearchPlan
from study.search.spec import SearchSpec
from trainables.config import tasks_of
from trainables.history import Point
from trainables.session import Report
from trainables.settings import parse_yaml

SPEC = """
id: little
title: A little search
profile: smoke
base:
  tasks: {include: [normal, reshading]}
  train: {budget: {amount: 9}}
axes:
  optim.lr: {float: [1.0e-4, 1.0e-1], log: true}
  train.batch_size: [2, 4, 8]
contenders:
  - {id: gd, label: GD, set: {method: gd}}
evaluations: 9
budget: {trials: 12}
sampler: {name: random}
pruner: {name: none}
"""

Answer = Callable[[Trial, int], float]
"""(trial, iteration) to the metric of both of its tasks; the baseline has 1, lower is better."""


def little(**over: Any) -> SearchSpec:
    raw = parse_yaml(SPEC, "little.yaml")
    return SearchSpec.parse({**raw, **over})


def bowl(trial: Trial, iteration: int) -> float:
    """Best at a learning rate of 1e-2 and the largest batch, better the longer it trains."""
    distance = abs(math.log10(trial.config.optim.lr) + 2) + 0.1 * (3 - math.log2(trial.config.train.batch_size))
    return 0.5 + 0.3 * distance + 0.4 / iteration


def reports(trial: Trial, answer: Answer, every: int = 1) -> Iterator[Report]:
    """What a trial would say that trains for nine iterations."""
    tasks = tasks_of(trial.config)
    for iteration in range(every, 10, every):
        points = [
            Point(schema.metric(schema.VAL, task.name, task.metric), iteration, answer(trial, iteration))
            for task in tasks
        ]
        costs = {"trunk_passes": 2.0 * iteration, "seconds": 0.1 * iteration, "iterations": float(iteration)}
        yield Report(trial.key, iteration, iteration / 9, points, costs, first=iteration == every, done=iteration == 9)


def contest_of(plan: SearchPlan, storage: Any, lookup: Lookup = lambda key: None, contender: int = 0) -> Contest:
    chosen = plan.contenders[contender]
    tasks = tasks_of(chosen.config)
    baseline = {task.name: 1.0 for task in tasks}
    objective = Objective(plan.spec.objective, delta_m, tasks, baseline)
    return Contest(chosen, plan.spec, storage, objective, lookup)


def play(contest: Contest, answer: Answer = bowl) -> list[Trial]:
    """Run a contest to its end, one trial at a time."""
    played = []
    while (trial := contest.next()) is not None:
        played.append(trial)
        for report in reports(trial, answer):
            decision, _ = contest.take(report)
            if report.over:
                contest.finish(report, "run")
            elif decision is Decision.STOP:
                contest.stop(trial.key, "run")
                break
    return played


class KilledError(Exception):
    """The driver is gone."""


class Mortal:
    """A storage whose driver dies at, or right after, the n-th write."""

    WRITES = (
        *("create_new_trial", "set_trial_param", "set_trial_state_values", "set_trial_intermediate_value"),
        *("set_trial_user_attr", "set_trial_system_attr", "set_study_user_attr", "set_study_system_attr"),
    )

    def __init__(self, storage: optuna.storages.BaseStorage) -> None:
        self._storage = storage
        self.writes, self.last, self.after = 0, math.inf, False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)
        if name not in self.WRITES:
            return method

        def write(*args: Any, **options: Any) -> Any:
            self.writes += 1
            if self.writes >= self.last and not self.after:
                raise KilledError
            answer = method(*args, **options)
            if self.writes >= self.last:
                raise KilledError
            return answer

        return write
