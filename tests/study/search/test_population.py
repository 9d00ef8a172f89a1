from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from contests import KilledError, Mortal, bowl, little
from optuna.trial import TrialState

from analysis.delta_m import delta_m
from study import schema
from study.plan import Trial
from study.search.entries import DELTA_M, PASSES, POINT, STATUS, TRIAL_KEY, Decision, Past
from study.search.objective import Objective
from study.search.plan import plan_search
from study.search.population import CHILD_OF, LR_STEPS, Population
from study.search.spec import SearchSpec
from trainables import checkpoint
from trainables.config import load_trial, tasks_of, trial_key
from trainables.errors import ConfigError
from trainables.history import Point
from trainables.presets import merge
from trainables.session import Report, Session, TrialTask

SPEC = little(sampler={"name": "pbt", "population": 6}, pruner={"name": "none"}, evaluations=9)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def storage(folder: Path) -> optuna.storages.BaseStorage:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "journal.log")))


class World:
    """Checkpoints as numbers: at which evaluation each trial stands; and the records of those that ended."""

    def __init__(self) -> None:
        self.at: dict[str, int] = {}
        self.records: dict[str, Past] = {}
        self.trained = 0

    def hand_down(self, parent: str, child: str) -> None:
        self.at[child] = self.at[parent]

    def reports(self, trial: Trial) -> Iterator[Report]:
        start = self.at.get(trial.key, 0)
        first = True
        for number in range(start, 10):
            if number == 0:
                continue
            self.trained += number > start  # one that goes on says where it stands before it trains
            seen = range(1, number + 1) if first else (number,)
            points = [
                Point(schema.metric(schema.VAL, task.name, task.metric), n, bowl(trial, n))
                for n in seen
                for task in tasks_of(trial.config)
            ]
            costs = {"trunk_passes": 2.0 * number, "seconds": 0.1 * number, "iterations": float(number)}
            self.at[trial.key] = number
            yield Report(trial.key, number, number / 9, points, costs, first=first, done=number == 9, saved=True)
            first = False


def population(storage: Any, world: World, spec: SearchSpec = SPEC) -> Population:
    plan = plan_search(spec)
    chosen = plan.contenders[0]
    tasks = tasks_of(chosen.config)
    objective = Objective(plan.spec.objective, delta_m, tasks, {task.name: 1.0 for task in tasks})
    return Population(chosen, plan.spec, storage, objective, world.records.get, world.hand_down)


def play(search: Population, world: World, perhaps: Any = lambda: None) -> None:
    while (trial := search.next()) is not None:
        perhaps()
        for report in world.reports(trial):
            decision, _ = search.take(report)
            perhaps()
            if report.over:
                values = {point.name: point.value for point in report.points}
                values |= {schema.cost(name): value for name, value in report.costs.items()}
                world.records[trial.key] = Past("run", schema.VALIDATED, "", values)
                search.finish(report, "run")
            elif decision is Decision.PAUSE:
                search.pause(trial.key, "run")
                break
        perhaps()


def outcomes(search: Population) -> list[tuple[str, str, float, float]]:
    done = [t.user_attrs for t in search.trials() if t.user_attrs.get(STATUS) != schema.FAILED]
    return sorted((a[POINT], a[STATUS], a[DELTA_M], a[PASSES]) for a in done)


def test_the_worst_are_replaced_by_changed_copies_of_the_best(tmp_path: Path) -> None:
    world = World()
    search = population(storage(tmp_path), world)
    play(search, world)
    assert search.share_spent() == 1.0
    whole = [t for t in search.trials() if t.state is TrialState.COMPLETE]
    replaced = [t for t in search.trials() if t.state is TrialState.PRUNED]
    assert len(whole) == 6
    assert len(replaced) == 2 * 8  # two of six at each evaluation but the last
    by_number = {t.number: t for t in search.trials()}
    for trial in search.trials():
        if CHILD_OF not in trial.user_attrs:
            continue
        parent = by_number[trial.user_attrs[CHILD_OF]]
        point, above = json.loads(trial.user_attrs[POINT]), json.loads(parent.user_attrs[POINT])
        assert point[LR_STEPS][:-1] == above.get(LR_STEPS, [])
        assert {k: v for k, v in point.items() if k != LR_STEPS} == {k: v for k, v in above.items() if k != LR_STEPS}
        start = point[LR_STEPS][-1][0]
        assert trial.user_attrs[PASSES] == 2.0 * (world.at[trial.user_attrs[TRIAL_KEY]] - start)
    # Every evaluation was trained for once: a child pays for what comes after its parent's checkpoint only.
    assert search.spent(PASSES) == 2.0 * world.trained == 2.0 * 6 * 9
    assert search.winner() == json.loads(max(whole, key=lambda t: t.value or 0.0).user_attrs[POINT])


@pytest.mark.parametrize("seed", range(4))
def test_a_population_killed_again_and_again_ends_as_an_undisturbed_one(seed: int, tmp_path: Path) -> None:
    for name in ("calm", "storm"):
        (tmp_path / name).mkdir()
    calm = World()
    undisturbed = population(storage(tmp_path / "calm"), calm)
    play(undisturbed, calm)
    generator, kills, world = random.Random(seed), 0, World()

    def perhaps() -> None:
        if generator.random() < 0.03:
            raise InterruptedError

    while True:
        search = population(storage(tmp_path / "storm"), world)
        try:
            play(search, world, perhaps)
            break
        except InterruptedError:
            kills += 1
    assert kills > 0
    assert outcomes(search) == outcomes(undisturbed)
    assert TrialState.RUNNING not in {t.state for t in search._study.get_trials()}


def test_a_driver_that_dies_at_any_write_of_the_search_changes_nothing_of_its_population() -> None:
    spec = little(sampler={"name": "pbt", "population": 4}, pruner={"name": "none"}, evaluations=9)

    def mortal() -> Mortal:
        return Mortal(optuna.storages.InMemoryStorage())

    undisturbed, calm = World(), mortal()
    search = population(calm, undisturbed, spec)
    play(search, undisturbed)
    expected = outcomes(search)
    for last, after in itertools.product(range(1, calm.writes + 1), (False, True)):
        world, storm = World(), mortal()
        storm.last, storm.after = last, after
        with pytest.raises(KilledError):
            play(population(storm, world, spec), world)
        storm.last = math.inf
        search = population(storm, world, spec)
        play(search, world)
        where = f"{'after' if after else 'at'} write {last}"
        assert outcomes(search) == expected, where
        assert TrialState.RUNNING not in {t.state for t in search._study.get_trials()}, where


def test_a_child_that_starts_from_its_parent_is_the_trial_its_config_says(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    def task(steps: list[list[float]], name: str | None) -> TrialTask:
        fields = {"optim": {"lr_steps": steps}, "method": "selective", "train": {"budget": {"amount": 6}}}
        config = load_trial(merge(tiny, fields))
        path = str(tmp_path / name) if name else None
        return TrialTask(trial_key(config), config.to_dict(), str(data_root), path, "cpu", "", True, True)

    def whole(session: Session) -> list[tuple[str, int, float]]:
        points = []
        while not session.trainer.done:
            points += session.advance(1e9).points
        return [(p.name, p.step, p.value) for p in points]

    parent, child = task([], "parent.ckpt"), task([[3, 0.5]], "child.ckpt")
    report = Session(parent).advance(1e9)
    assert (report.iteration, report.saved, report.done) == (3, True, False)
    paths = Path(str(parent.checkpoint)), Path(str(child.checkpoint))
    assert checkpoint.hand_down(*paths, parent=parent.key, child=child.key)
    session = Session(child)
    assert session.trainer.iteration == 3
    told = session.advance(1e9)  # where it stands, before it trains
    assert (told.iteration, told.first) == (3, True)
    session = Session(child)
    from_parent, from_scratch = whole(session), whole(Session(task([[3, 0.5]], None)))
    assert from_parent == from_scratch
    assert from_scratch != whole(Session(task([], None)))
    assert not checkpoint.hand_down(tmp_path / "none", paths[1], parent=parent.key, child=child.key)


def test_steps_of_the_learning_rate_are_checked(tiny: dict[str, Any]) -> None:
    for steps in ([[3, 0.5], [3, 2.0]], [[-1, 0.5]], [[1, 0.0]]):
        with pytest.raises(ConfigError, match=r"optim\.lr_steps"):
            load_trial(merge(tiny, {"optim": {"lr_steps": steps}}))


def test_a_population_needs_one_number_and_no_pruner() -> None:
    for over in ({"pruner": {"name": "asha"}}, {"objective": {"name": "tasks"}}):
        with pytest.raises(ConfigError, match=r"sampler\.name: 'pbt' ranks its members"):
            little(sampler={"name": "pbt"}, **over)
