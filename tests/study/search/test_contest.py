from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from contests import KilledError, Mortal, bowl, contest_of, little, play, reports
from optuna.trial import TrialState

from study import schema
from study.plan import Trial
from study.search.contest import Contest
from study.search.entries import DELTA_M, ORDINAL, PASSES, POINT, STATUS, TRIAL_KEY, Decision, Past
from study.search.plan import plan_search
from study.search.spec import SearchSpec
from trainables.errors import ConfigError
from trainables.session import Report

SAMPLERS = ("tpe", "gp", "cmaes", "nsga2", "nsga3", "random", "qmc", "grid", "brute_force")
PRUNERS = ("none", "asha", "hyperband", "median", "patient")


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def storage(folder: Path) -> optuna.storages.BaseStorage:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "journal.log")))


def spec_of(sampler: str, pruner: str = "none", **over: object) -> SearchSpec:
    fields: dict[str, object] = {"sampler": {"name": sampler, "startup": 4, "population": 4, "counts": 3}}
    if sampler == "brute_force":
        fields["axes"] = {"optim.lr": [1e-3, 1e-2], "train.batch_size": [2, 4, 8]}
    return little(**fields, pruner={"name": pruner, "startup": 2}, **over)


def outcomes(contest: Contest) -> list[tuple[str, str, float | None]]:
    return [(t.user_attrs[POINT], t.user_attrs[STATUS], t.user_attrs.get(DELTA_M)) for t in contest.trials()]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_spends_its_budget_on_trials_of_the_space(sampler: str, tmp_path: Path) -> None:
    plan = plan_search(spec_of(sampler))
    contest = contest_of(plan, storage(tmp_path))
    played = play(contest)
    space = plan.contenders[0].space
    expected = {"grid": 10, "brute_force": 6}.get(sampler, 12)  # the grid's nine, and the defaults
    assert len(contest.trials()) == expected
    assert contest.exhausted == (sampler in ("grid", "brute_force"))
    assert len({trial.key for trial in played}) == len(played)
    for trial in contest.trials():
        point = json.loads(trial.user_attrs[POINT])
        assert space.alive(point) == point
        assert trial.state is TrialState.COMPLETE
    assert contest.winner() == json.loads(max(outcomes(contest), key=lambda o: o[2] or -math.inf)[0])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_search_makes_the_same_trials_and_another_seed_others(sampler: str, tmp_path: Path) -> None:
    def run(name: str, seed: int) -> list[tuple[str, str, float | None]]:
        folder = tmp_path / name
        folder.mkdir()
        contest = contest_of(plan_search(spec_of(sampler).changed(sampler_seed=seed)), storage(folder))
        play(contest)
        return outcomes(contest)

    first = run("a", 0)
    assert run("b", 0) == first
    if sampler not in ("grid", "brute_force"):
        assert run("c", 1) != first


@pytest.mark.parametrize("pruner", PRUNERS)
def test_pruners_stop_what_is_worse_and_spare_the_best(pruner: str, tmp_path: Path) -> None:
    contest = contest_of(plan_search(spec_of("random", pruner, budget={"trials": 30})), storage(tmp_path))
    play(contest)
    stopped = [t for t in contest.trials() if t.state is TrialState.PRUNED]
    whole = [t for t in contest.trials() if t.state is TrialState.COMPLETE]
    assert len(stopped) + len(whole) == 30
    assert bool(stopped) == (pruner not in ("none", "patient"))  # patience: these curves never cease to gain
    for trial in stopped:
        assert trial.user_attrs[STATUS] == schema.PRUNED
        assert trial.user_attrs[PASSES] == 2.0 * max(trial.intermediate_values)
        assert max(trial.intermediate_values) < 9
    best = max(contest.trials(), key=lambda t: t.intermediate_values[1])
    if pruner == "asha":
        assert best.state is TrialState.COMPLETE
        assert contest.spent(PASSES) < 0.7 * 30 * 18


def play_until_killed(contest: Contest, generator: random.Random, chance: float) -> None:
    """As :func:`contests.play`, with a death before, between or after any two calls."""

    def perhaps() -> None:
        if generator.random() < chance:
            raise KilledError

    while True:
        perhaps()
        trial = contest.next()
        if trial is None:
            return
        perhaps()
        for report in reports(trial, bowl):
            decision, _ = contest.take(report)
            perhaps()
            if report.over:
                contest.finish(report, "run")
            elif decision is Decision.STOP:
                contest.stop(trial.key, "run")
                break


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sampler", "pruner"), [("tpe", "asha"), ("random", "median"), ("cmaes", "none")])
def test_a_search_killed_again_and_again_ends_with_the_trials_of_an_undisturbed_one(
    sampler: str, pruner: str, seed: int, tmp_path: Path
) -> None:
    plan = plan_search(spec_of(sampler, pruner))
    (tmp_path / "calm").mkdir()
    (tmp_path / "storm").mkdir()
    calm = contest_of(plan, storage(tmp_path / "calm"))
    play(calm)
    generator, kills = random.Random(seed), 0
    while True:
        contest = contest_of(plan, storage(tmp_path / "storm"))
        try:
            play_until_killed(contest, generator, 0.04)
            break
        except KilledError:
            kills += 1
    assert kills > 0
    assert outcomes(contest) == outcomes(calm)
    states = {t.state for t in contest._study.get_trials()}
    assert TrialState.RUNNING not in states


@pytest.mark.parametrize("note", range(1, 7))
def test_a_stopped_trial_whose_end_is_recorded_and_half_told_ends_as_it_did(
    note: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_search(spec_of("random", "median"))
    (tmp_path / "calm").mkdir()
    (tmp_path / "storm").mkdir()
    calm = contest_of(plan, storage(tmp_path / "calm"))
    play(calm)
    records: dict[str, Past] = {}
    storm = contest_of(plan, storage(tmp_path / "storm"), records.get)
    killed = False
    while (trial := storm.next()) is not None:
        for report in reports(trial, bowl):
            decision, _ = storm.take(report)
            if report.over:
                storm.finish(report, "run")
            elif decision is Decision.STOP:
                why = storm.why_stopped(trial.key)
                records[trial.key] = replace(past_of(trial, schema.PRUNED, report), reason=why)
                if killed:
                    storm.stop(trial.key, "run")
                    break
                told, original = itertools.count(1), optuna.Trial.set_user_attr

                def dying(
                    self: optuna.Trial, *args: Any, told: Any = told, original: Callable[..., None] = original
                ) -> None:
                    if next(told) == note:
                        raise KilledError
                    original(self, *args)

                with monkeypatch.context() as patched:
                    patched.setattr(optuna.Trial, "set_user_attr", dying)
                    with pytest.raises(KilledError):
                        storm.stop(trial.key, "run")
                storm, killed = contest_of(plan, storage(tmp_path / "storm"), records.get), True
                break
    assert killed
    assert outcomes(storm) == outcomes(calm)
    noted = [[t.user_attrs[name] for name in (PASSES, STATUS)] for t in storm.trials()]
    assert noted == [[t.user_attrs[name] for name in (PASSES, STATUS)] for t in calm.trials()]


def test_a_trial_half_asked_for_is_dropped_and_its_point_asked_again(tmp_path: Path) -> None:
    plan = plan_search(spec_of("tpe"))
    contest = contest_of(plan, storage(tmp_path))
    lost = contest._study.ask()  # the enqueued defaults, popped by a driver that then died
    again = contest_of(plan, storage(tmp_path))
    assert again._study.get_trials()[lost.number].state is TrialState.FAIL
    first = again.next()
    assert first is not None
    assert first.config.optim.lr == plan.contenders[0].config.optim.lr
    assert again.trials()[0].user_attrs[ORDINAL] == 0


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
@pytest.mark.parametrize("asked", [0, 3])
@pytest.mark.parametrize("notes", [0, 1, 2, 3])
def test_a_driver_that_dies_while_it_notes_what_it_asks_for(
    notes: int, asked: int, sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_search(spec_of(sampler))
    for name in ("calm", "storm"):
        (tmp_path / name).mkdir()
    calm, storm = contest_of(plan, storage(tmp_path / "calm")), contest_of(plan, storage(tmp_path / "storm"))
    play(calm)
    for _ in range(asked):
        trial = storm.next()
        assert trial is not None
        for report in reports(trial, bowl):
            storm.take(report)
        storm.finish(report, "run")
    told, original = itertools.count(), optuna.Trial.set_user_attr

    def dying(self: optuna.Trial, *args: Any) -> None:
        if next(told) == notes:
            raise KilledError
        original(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Trial, "set_user_attr", dying)
        # With the last of them it is asked for, and has begun.
        with pytest.raises(KilledError) if notes < 3 else nullcontext():
            storm.next()
    again = contest_of(plan, storage(tmp_path / "storm"))
    play(again)
    assert outcomes(again) == outcomes(calm)
    half = [trial for trial in again._study.get_trials() if trial.state is TrialState.FAIL]
    assert [ORDINAL in trial.user_attrs for trial in half] == ([False] if notes < 3 else [])


def test_what_was_made_before_is_not_made_again(tmp_path: Path) -> None:
    plan = plan_search(spec_of("random", axes={"train.batch_size": [2, 4, 8]}))
    contest = contest_of(plan, storage(tmp_path))
    played = play(contest)
    assert len(played) == 3
    assert len(contest.trials()) == 12
    assert contest.spent(PASSES) == 3 * 18.0
    by_key: dict[str, set[float]] = {}
    for trial in contest.trials():
        by_key.setdefault(trial.user_attrs[TRIAL_KEY], set()).add(trial.user_attrs[DELTA_M])
    assert all(len(values) == 1 for values in by_key.values())


def past_of(trial: Trial, status: str, last: Report | None = None) -> Past:
    last = last or list(reports(trial, bowl))[-1]
    metrics = {point.name: point.value for point in last.points}
    metrics |= {schema.cost(name): value for name, value in last.costs.items()}
    return Past(f"run-{trial.key[:8]}", status, "the loss of normal" if status == schema.DIVERGED else "", metrics)


def test_finished_trials_of_the_records_are_taken_and_pay_what_they_cost(tmp_path: Path) -> None:
    plan = plan_search(spec_of("random"))
    default = plan.contenders[0].trial({"optim.lr": 1e-3, "train.batch_size": 4})
    contest = contest_of(
        plan, storage(tmp_path), lambda key: past_of(default, schema.COMPLETE) if key == default.key else None
    )
    played = play(contest)
    assert default.key not in {trial.key for trial in played}
    found = next(t for t in contest.trials() if t.user_attrs[TRIAL_KEY] == default.key)
    assert found.user_attrs[PASSES] == 18.0
    assert found.value == pytest.approx(100 * (1 - bowl(default, 9)))


@pytest.mark.parametrize("objective", ["delta_m", "tasks", "cost"])
def test_a_diverged_trial_is_the_worst_and_a_number(objective: str, tmp_path: Path) -> None:
    plan = plan_search(spec_of("tpe", objective={"name": objective}, budget={"trials": 4}))
    contest = contest_of(plan, storage(tmp_path))
    first = contest.next()
    assert first is not None
    contest.take(next(reports(first, bowl)))
    contest.finish(
        Report(first.key, 2, 0.2, [], {"trunk_passes": 4.0, "seconds": 1.0}, diverged="the loss of normal"), "run"
    )
    play(contest)
    gone, *others = contest.trials()
    assert gone.user_attrs[STATUS] == schema.DIVERGED
    assert DELTA_M not in gone.user_attrs
    assert contest.best() in others
    if objective == "delta_m":
        assert gone.state is TrialState.PRUNED
        assert gone.value == -100.0
    else:
        assert gone.state is TrialState.COMPLETE
        worst = {"tasks": [2.0, 2.0], "cost": [-100.0, 18.0]}[objective]
        assert gone.values == worst
        assert all(all(math.isfinite(value) for value in other.values) for other in others)


def test_a_failed_trial_is_told_as_failed_and_the_search_goes_on(tmp_path: Path) -> None:
    contest = contest_of(plan_search(spec_of("tpe", budget={"trials": 5})), storage(tmp_path))
    first = contest.next()
    assert first is not None
    contest.fail(first.key, "ValueError: a bug")
    assert len(play(contest)) == 4
    assert contest.trials()[0].state is TrialState.FAIL


def test_a_value_that_is_no_number_fails_its_trial_and_nothing_else(tmp_path: Path) -> None:
    contest = contest_of(plan_search(spec_of("tpe", "asha", budget={"trials": 4})), storage(tmp_path))
    play(contest, lambda trial, iteration: math.nan if trial.config.train.batch_size == 4 else bowl(trial, iteration))
    failed = [t for t in contest.trials() if t.state is TrialState.FAIL]
    assert failed
    assert all(json.loads(t.user_attrs[POINT])["train.batch_size"] == 4 for t in failed)


def test_a_budget_of_passes_ends_the_search_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    small = plan_search(spec_of("tpe", budget={"trunk_passes": 100}))
    contest = contest_of(small, storage(tmp_path))
    play(contest)
    assert 100 <= contest.spent(PASSES) < 100 + 18
    large = plan_search(spec_of("tpe", budget={"trunk_passes": 200}))
    assert large.contenders[0].study == small.contenders[0].study
    more = contest_of(large, storage(tmp_path))
    before = len(more.trials())
    play(more)
    assert len(more.trials()) > before
    assert 200 <= more.spent(PASSES) < 200 + 18


def test_points_are_tried_first_after_the_defaults(tmp_path: Path) -> None:
    plan = plan_search(spec_of("tpe", points=[{"optim.lr": 0.05}]))
    contest = contest_of(plan, storage(tmp_path))
    contest.enqueue({"optim.lr": 0.02, "train.batch_size": 8})
    played = play(contest)
    assert [(t.config.optim.lr, t.config.train.batch_size) for t in played[:3]] == [(1e-3, 4), (0.05, 4), (0.02, 8)]
    with pytest.raises(ConfigError, match=r"axes\.optim\.lr: .* is wanted, got 7"):
        contest.enqueue({"optim.lr": 7.0, "train.batch_size": 8})
    with pytest.raises(ConfigError, match=r"'method\.beta' is no axis of contender 'gd'"):
        contest.enqueue({"optim.lr": 0.01, "train.batch_size": 8, "method.beta": 0.1})


def test_a_warm_start_teaches_without_spending(tmp_path: Path) -> None:
    plan = plan_search(spec_of("tpe"))
    contender = plan.contenders[0]
    contest = contest_of(plan, storage(tmp_path))
    near = contender.trial({"optim.lr": 0.01, "train.batch_size": 8})
    past = past_of(near, schema.COMPLETE)
    assert contest.learn(near.config.to_dict(), past)
    assert not contest.learn(near.config.to_dict(), past)  # known by now
    assert contest.spent("trials") == 0
    assert contest.winner() == {"optim.lr": 0.01, "train.batch_size": 8}
    other = near.config.to_dict() | {"method": {"name": "selective"}}
    assert not contest.learn(other, past)


def test_parallel_workers_are_not_given_the_same_trial(tmp_path: Path) -> None:
    plan = plan_search(spec_of("random", axes={"train.batch_size": [2, 4, 8]}))
    contest = contest_of(plan, storage(tmp_path))
    together = [contest.next() for _ in range(3)]
    assert len({trial.key for trial in together if trial is not None}) == 3
    assert contest.next() is None  # everything runs
    for trial in together:
        assert trial is not None
        for report in reports(trial, bowl):
            contest.take(report)
        contest.finish(report, "run")
    play(contest)
    assert len(contest.trials()) == 12


class _Machine:
    """What a home keeps of trials that are made up, and a driver as :mod:`study.search.engine` is one.

    Args:
        plan: of the search.
        saves: whether a trial leaves a checkpoint at an evaluation, before it hears the verdict on that.
    """

    def __init__(self, plan: Any, saves: Callable[[], bool]) -> None:
        self.plan, self.saves = plan, saves
        self.storage = Mortal(optuna.storages.InMemoryStorage())
        self.records: dict[str, Past] = {}
        self.checkpoints: dict[str, int] = {}
        self.trained: dict[str, list[int]] = {}

    def drive(self) -> Contest:
        contest = contest_of(self.plan, self.storage, self.records.get)
        while (trial := contest.next()) is not None:
            for report in self._reports(trial):
                decision, _ = contest.take(report)
                if report.over:
                    self.records[trial.key] = past_of(trial, schema.VALIDATED, report)
                    contest.finish(report, "run")
                elif decision is Decision.STOP:
                    why = contest.why_stopped(trial.key)
                    self.records[trial.key] = replace(past_of(trial, schema.PRUNED, report), reason=why)
                    contest.stop(trial.key, "run")
                    break
        return contest

    def _reports(self, trial: Trial) -> Iterator[Report]:
        every = list(reports(trial, bowl))
        start = self.checkpoints.get(trial.key, 0)
        if start:
            points = [point for report in every[:start] for point in report.points]
            yield replace(every[start - 1], points=points, first=True)
        for number, report in enumerate(every[start:], start=start + 1):
            self.trained.setdefault(trial.key, []).append(number)
            if self.saves():
                self.checkpoints[trial.key] = number
            yield report


@pytest.mark.parametrize("saved", [0.0, 0.5])
@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [("random", "asha"), ("random", "hyperband"), ("tpe", "hyperband"), ("random", "median"), ("random", "patient")],
)
def test_a_driver_that_dies_at_any_write_of_the_search_changes_none_of_its_trials(
    sampler: str, pruner: str, saved: float
) -> None:
    generator = random.Random(7)
    plan = plan_search(spec_of(sampler, pruner, budget={"trials": 6}))

    def machine() -> _Machine:
        return _Machine(plan, lambda: generator.random() < saved)

    calm = machine()
    expected = outcomes(calm.drive())
    if pruner != "patient":
        assert {status for _, status, _ in expected} == {schema.PRUNED, schema.VALIDATED}
    depths = {key: max(numbers) for key, numbers in calm.trained.items()}
    for last, after in itertools.product(range(1, calm.storage.writes + 1), (False, True)):
        storm = machine()
        storm.storage.last, storm.storage.after = last, after
        with pytest.raises(KilledError):
            storm.drive()
        storm.storage.last = math.inf
        contest = storm.drive()
        where = f"{'after' if after else 'at'} write {last}"
        assert outcomes(contest) == expected, where
        assert {key: max(numbers) for key, numbers in storm.trained.items()} == depths, where
        assert TrialState.RUNNING not in {t.state for t in contest._study.get_trials()}, where
