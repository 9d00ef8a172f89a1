from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ray import cloudpickle

from study.executors import ExecutorSettings, Failure, Listed, LocalExecutor, TuneExecutor, Verdict, make_executor
from study.executors.relay import Relay, reason_of
from study.home import Home
from trainables.config import load_trial, trial_key
from trainables.errors import ConfigError, out_of_memory
from trainables.presets import merge
from trainables.session import Report, Session, TrialTask
from trainables.trainable import TrialTrainable

CHUNKS = ExecutorSettings(workers=2, chunk_seconds=0.0, checkpoint_seconds=0.0, max_failures=1)


def make_tasks(tiny: dict[str, Any], data_root: Path, folder: Path, **over: Any) -> list[TrialTask]:
    tasks = []
    for method in ("gd", "selective"):
        for seed in (0, 1):
            config = load_trial(merge(tiny, {"method": method, "seed": seed, **over}))
            key = trial_key(config)
            tasks.append(TrialTask(key, config.to_dict(), str(data_root), str(folder / f"{key}.ckpt"), label=method))
    return tasks


def collect(run: Callable[[Callable[[Report | Failure], None]], None]) -> tuple[dict[str, list[Report]], list[Failure]]:
    reports: dict[str, list[Report]] = {}
    failures: list[Failure] = []

    def on_event(event: Report | Failure) -> None:
        if isinstance(event, Failure):
            failures.append(event)
        else:
            if event.first:
                reports[event.key] = []
            reports[event.key].append(event)

    run(on_event)
    return reports, failures


def outcome(reports: list[Report]) -> list[tuple[str, int, float]]:
    return [(p.name, p.step, p.value) for r in reports for p in r.points]


def here(task: TrialTask) -> list[tuple[str, int, float]]:
    session = Session(TrialTask(task.key, task.config, task.data_root))
    reports = [session.advance(1e9)]
    assert reports[-1].done
    return outcome(reports)


def test_local_workers_give_the_bits_of_this_process(tiny: dict[str, Any], data_root: Path, tmp_path: Path) -> None:
    tasks = make_tasks(tiny, data_root, tmp_path)
    reports, failures = collect(lambda on: LocalExecutor(CHUNKS).run(Listed(tasks), on))
    assert failures == []
    assert {key: outcome(got) for key, got in reports.items()} == {task.key: here(task) for task in tasks}
    assert all(got[-1].done for got in reports.values())


@pytest.mark.ray
@pytest.mark.slow
def test_ray_workers_give_the_same_bits_with_actors_reused(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    home.require()
    tasks = make_tasks(tiny, data_root, tmp_path)
    reports, failures = collect(lambda on: TuneExecutor(CHUNKS, home).run(Listed(tasks), on))
    assert failures == []
    assert {key: outcome(got) for key, got in reports.items()} == {task.key: here(task) for task in tasks}
    assert not list(home.scratch.iterdir())


def kill_a_worker_once(events: Callable[[Report | Failure], None]) -> Callable[[Report | Failure], None]:
    done = False

    def on_event(event: Report | Failure) -> None:
        nonlocal done
        events(event)
        if not done and isinstance(event, Report) and event.iteration >= 3 and not event.over:
            done = True
            pid = int(event.worker["pid"])
            assert pid != os.getpid()
            os.kill(pid, signal.SIGKILL)

    return on_event


def test_a_killed_local_worker_is_replaced_and_its_trial_ends_with_the_same_bits(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    tasks = make_tasks(tiny, data_root, tmp_path, train={"budget": {"amount": 60}})[:2]
    settings = ExecutorSettings(workers=1, chunk_seconds=0.0, checkpoint_seconds=0.0, max_failures=1)
    reports, failures = collect(lambda on: LocalExecutor(settings).run(Listed(tasks), kill_a_worker_once(on)))
    assert failures == []
    assert {key: outcome(got) for key, got in reports.items()} == {task.key: here(task) for task in tasks}
    workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
    assert workers == []


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_ray_worker_is_replaced_and_its_trial_ends_with_the_same_bits(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    home.require()
    tasks = make_tasks(tiny, data_root, tmp_path, train={"budget": {"amount": 60}})[:2]
    reports, failures = collect(lambda on: TuneExecutor(CHUNKS, home).run(Listed(tasks), kill_a_worker_once(on)))
    assert failures == []
    assert {key: outcome(got) for key, got in reports.items()} == {task.key: here(task) for task in tasks}


def test_what_cannot_be_run_is_a_failure_with_its_reason_and_the_rest_goes_on(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    good = make_tasks(tiny, data_root, tmp_path)[0]
    lost = TrialTask(make_tasks(tiny, data_root, tmp_path)[1].key, good.config | {"seed": 1}, str(tmp_path / "nowhere"))
    reports, failures = collect(lambda on: LocalExecutor(CHUNKS).run(Listed([lost, good]), on))
    assert [failure.key for failure in failures] == [lost.key]
    assert "\n" not in failures[0].reason
    assert failures[0].traceback == ""  # a user error explains itself
    assert reports[good.key][-1].done


def test_an_error_in_the_driver_ends_the_run_and_its_workers(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    def on_event(event: Report | Failure) -> None:
        raise RuntimeError("the store is gone")

    with pytest.raises(RuntimeError, match="the store is gone"):
        LocalExecutor(CHUNKS).run(Listed(make_tasks(tiny, data_root, tmp_path)), on_event)


def test_the_relay_keeps_the_first_error_and_drops_what_follows() -> None:
    seen = []

    def on_event(event: Report | Failure) -> None:
        seen.append(event)
        raise OSError("disk full")

    relay = Relay(on_event)
    for key in ("a", "b"):
        relay.tell(Failure(key, "x"))
    assert len(seen) == 1
    with pytest.raises(OSError, match="disk full"):
        relay.raise_pending()


def test_a_trial_that_says_nothing_is_a_failure() -> None:
    failures: list[Any] = []
    relay = Relay(failures.append)
    relay.running.add("b")
    relay.fail_silent()
    assert failures == [Failure("b", "ended without reporting its final metrics")]


def test_remote_errors_become_one_line() -> None:
    assert reason_of(None) == reason_of("") == "failed without an error"
    unavailable = "The actor 60a9 is unavailable: The actor is temporarily unavailable: RpcError: Socket closed."
    assert reason_of(f"{unavailable}\nThe task may have been executed.\n") == unavailable
    assert reason_of("Traceback (most recent call last):\n  node x failed\nValueError: bad\n") == "ValueError: bad"
    assert reason_of(RuntimeError("Traceback\n  File\nValueError: bad\n")) == "ValueError: bad"
    error = RuntimeError("outer")
    error.cause = KeyError("x")  # type: ignore[attr-defined]
    assert reason_of(error) == "KeyError: 'x'"


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        (ExecutorSettings(workers=2), 5.0),
        (ExecutorSettings(workers=200), 5.0),
        (ExecutorSettings(workers=800), 20.0),
        (ExecutorSettings(workers=800, chunk_seconds=0.5), 0.5),
        (ExecutorSettings(workers=800, chunk_seconds=0.0), 0.0),
    ],
)
def test_trials_report_less_often_where_there_are_many(settings: ExecutorSettings, seconds: float) -> None:
    assert settings.report_seconds == seconds


def test_an_unknown_executor_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown executor 'locl'; did you mean 'local'"):
        make_executor("locl", CHUNKS, Home(tmp_path))


class Adaptive:
    """A source whose second trial is known only once the first has ended."""

    threads, cuda, adaptive = 1, False, True

    def __init__(self, tasks: list[TrialTask]) -> None:
        self.left = list(tasks)
        self.asked_while_running = 0
        self.running = 0

    def next(self) -> TrialTask | None:
        self.asked_while_running += self.running
        if not self.left:
            return None
        self.running += 1
        return self.left.pop(0)


def judge(run: Callable[[Any, Callable[[Report | Failure], Verdict | None]], None], tasks: list[TrialTask]) -> None:
    """The first trial is stopped at its first evaluation, the second goes to its end."""
    source, seen = Adaptive(tasks), []

    def on_event(event: Report | Failure) -> Verdict | None:
        assert isinstance(event, Report)
        seen.append(event)
        stop = event.key == tasks[0].key
        if event.over or stop:
            source.running -= 1
        return Verdict.STOP if stop else None

    run(source, on_event)
    first = [event for event in seen if event.key == tasks[0].key]
    assert [event.iteration for event in first] == [2]
    assert not first[0].over
    assert [event.iteration for event in seen if event.key == tasks[1].key] == [2, 4, 6]
    assert seen[-1].done
    assert source.asked_while_running == 0


def evaluated(tiny: dict[str, Any], data_root: Path, folder: Path) -> list[TrialTask]:
    often = {"record": {"eval_every": 2}, "train": {"budget": {"amount": 6}}}
    tasks = make_tasks(tiny, data_root, folder, **often)[:2]
    return [dataclasses.replace(task, report_evaluations=True) for task in tasks]


def test_local_trials_are_stopped_at_the_evaluation_judged(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    executor = LocalExecutor(ExecutorSettings(workers=1, chunk_seconds=100.0))
    judge(executor.run, evaluated(tiny, data_root, tmp_path))


def one_after_another(run: Callable[..., None], tasks: list[TrialTask]) -> None:
    """A trial whose worker dies ends before an adaptive source is asked for the next."""
    source, events = Adaptive(tasks), list[Report | Failure]()

    def on_event(event: Report | Failure) -> None:
        events.append(event)
        if isinstance(event, Failure) or event.over:
            source.running -= 1

    run(source, kill_a_worker_once(on_event))
    assert not [event for event in events if isinstance(event, Failure)]
    assert [event.key for event in events if isinstance(event, Report) and event.over] == [t.key for t in tasks]
    assert source.asked_while_running == 0


def test_a_local_trial_is_tried_again_before_an_adaptive_source_gives_the_next(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    one_after_another(LocalExecutor(ExecutorSettings(workers=1)).run, evaluated(tiny, data_root, tmp_path))


@pytest.mark.ray
@pytest.mark.slow
def test_a_ray_trial_is_tried_again_before_an_adaptive_source_gives_the_next(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    home.require()
    executor = TuneExecutor(ExecutorSettings(workers=1), home)
    one_after_another(executor.run, evaluated(tiny, data_root, tmp_path))


@pytest.mark.ray
@pytest.mark.slow
def test_ray_trials_are_stopped_at_the_evaluation_judged(tiny: dict[str, Any], data_root: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.require()
    executor = TuneExecutor(ExecutorSettings(workers=1, chunk_seconds=100.0), home)
    judge(executor.run, evaluated(tiny, data_root, tmp_path))


@pytest.mark.ray
@pytest.mark.slow
def test_an_error_in_the_driver_ends_a_ray_run(tiny: dict[str, Any], data_root: Path, tmp_path: Path) -> None:
    def on_event(event: Report | Failure) -> None:
        raise RuntimeError("the store is gone")

    home = Home(tmp_path / "home")
    home.require()
    with pytest.raises(RuntimeError, match="the store is gone"):
        TuneExecutor(CHUNKS, home).run(Listed(make_tasks(tiny, data_root, tmp_path)), on_event)


class Greedy(Session):
    """Runs out of memory in its second chunk, or while it is built."""

    def advance(self, seconds: float) -> Report:
        if self.trainer.iteration:
            raise MemoryError("not enough memory: you tried to allocate 8 GiB")
        return super().advance(seconds)


class Wrong(Session):
    def __init__(self, task: TrialTask, checkpoint_seconds: float = 30.0) -> None:
        raise ConfigError("optim.lr: is not to be had")


class Buggy(Session):
    def advance(self, seconds: float) -> Report:
        raise ValueError("a bug")


def test_on_ray_only_what_another_try_may_mend_is_tried_again(
    tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    """Tune retries what raises, where it is: a trial that lacks memory, or is not allowed, ends without raising."""
    task = make_tasks(tiny, data_root, tmp_path)[0]
    heard: list[Report | Failure] = []
    relay = Relay(heard.append)
    plain: dict[str, Any] = {"trial": dataclasses.asdict(task), "chunk_seconds": 0.0}
    trial = SimpleNamespace(config=plain)
    trainable = TrialTrainable({**plain, "session": Greedy})
    relay.running.add(task.key)
    assert not trainable.train()["done"]
    result = trainable.train()
    assert result["done"]
    relay.on_trial_result(1, [], trial, result)
    assert relay.running == set()
    assert trainable.reset_config({**plain, "session": Wrong})
    relay.on_trial_result(1, [], trial, trainable.train())
    memory, wrong = heard
    assert isinstance(memory, Failure)
    assert isinstance(wrong, Failure)
    assert out_of_memory(memory.reason)
    assert "Greedy" not in memory.reason
    assert "MemoryError" in memory.traceback
    assert (wrong.key, wrong.reason, wrong.traceback) == (task.key, "optim.lr: is not to be had", "")
    trainable.reset_config({**plain, "session": Buggy})
    with pytest.raises(ValueError, match="a bug"):
        trainable.step()
    trainable.reset_config(plain)
    assert trainable.train()["report"].iteration == 1


@pytest.mark.ray
@pytest.mark.slow
def test_ray_does_not_retry_a_trial_without_memory(tiny: dict[str, Any], data_root: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(CHUNKS, workers=1, session=Greedy)
    home = Home(tmp_path / "home")
    home.require()
    executor = TuneExecutor(settings, home)
    tasks = make_tasks(tiny, data_root, tmp_path)[:1]
    heard: list[Report | Failure] = []
    here_alone = sys.modules[__name__]  # Ray's workers cannot import it.
    cloudpickle.register_pickle_by_value(here_alone)
    try:
        executor.run(Listed(tasks), heard.append)
    finally:
        cloudpickle.unregister_pickle_by_value(here_alone)
    assert [type(event) for event in heard] == [Report, Failure]
    assert isinstance(heard[1], Failure)
    assert heard[1].reason == "MemoryError: not enough memory: you tried to allocate 8 GiB"
