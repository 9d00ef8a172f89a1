"""A sweep over nodes that come, go, and are cut off for a while: every trial is recorded once, with its own result."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from little import console

from benchmarks.idle import IdleSession
from study import schema
from study.executors import ExecutorSettings, Failure, Listed, TuneExecutor
from study.home import Home
from study.plan import make_plan
from study.runner import run_study
from study.spec import parse_spec
from study.store import open_client, search
from trainables import checkpoint
from trainables.config import load_trial, trial_key
from trainables.presets import merge
from trainables.session import Report, Session, TrialTask

TRIALS = 200
SPEC = """
id: many
title: Many short trials
profile: smoke
base:
  data: {image_size: 32, train: 8, val: 4, test: 4}
  tasks: {include: [normal, depth_zbuffer]}
  train: {batch_size: 2, budget: {amount: 4}}
baseline: gd
rows:
  - {id: gd, label: GD, set: {method: gd}}
"""


@pytest.fixture(scope="module")
def head() -> dict[str, Any]:
    """One that gives a silent node up after some seconds."""
    noticed = {
        "health_check_initial_delay_ms": 1000,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 5,
    }
    return {"_system_config": noticed}


@pytest.mark.ray
@pytest.mark.slow
def test_two_hundred_trials_over_nodes_that_come_and_go(nodes: Any, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    plan = make_plan(parse_spec(SPEC, "many.yaml"), seeds=TRIALS)
    there = [nodes.add_node(num_cpus=1)]
    lost = []

    def emit(event: Mapping[str, Any]) -> None:
        over = event.get("over", 0)
        if over >= 40 * len(there) and len(there) < 3:
            there.append(nodes.add_node(num_cpus=1))
        elif over >= 120 and not lost:
            lost.append(there[0])
            nodes.remove_node(there[0], allow_graceful=False)

    settings = ExecutorSettings(workers=4, chunk_seconds=0.02, cluster=nodes.address, session=IdleSession)
    try:
        outcome = run_study(plan, home, settings=settings, device="cpu", console=console(), emit=emit)
    finally:
        for node in there:
            if node not in lost:
                nodes.remove_node(node)
    assert lost
    assert (outcome.trained, outcome.failures) == (TRIALS, [])
    runs = [r for r in search(open_client(home), "") if r.data.tags[schema.KIND] == schema.TRIAL_RUN]
    finished = Counter(run.data.tags[schema.TRIAL_KEY] for run in runs if run.info.status == "FINISHED")
    assert finished == Counter(trial.key for trial in plan.trials)
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}, "of a lost node the attempt is closed as killed"


def processes_of(node: Any) -> list[psutil.Process]:
    """A node's raylet and all that it started."""
    (raylet,) = node.all_processes["raylet"]
    found = psutil.Process(raylet.process.pid)
    return [found, *found.children(recursive=True)]


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_that_is_cut_off_and_comes_back_changes_nothing(
    nodes: Any, tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    """All of a node's processes stand still until it has been given up and its trial was trained elsewhere."""
    home = Home(tmp_path / "home")
    home.require()
    tasks = []
    for seed in range(2):
        config = load_trial(merge(tiny, {"method": "gd", "seed": seed, "train": {"budget": {"amount": 300}}}))
        key = trial_key(config)
        tasks.append(TrialTask(key, config.to_dict(), str(data_root), str(tmp_path / f"{key}.ckpt")))
    second = nodes.add_node(num_cpus=1)
    frozen: list[psutil.Process] = []
    back = threading.Event()
    attempts: Counter[str] = Counter()
    reports: dict[str, list[Report]] = {}
    failures: list[Failure] = []

    def on_event(event: Report | Failure) -> None:
        if isinstance(event, Failure):
            failures.append(event)
            return
        if event.first:
            attempts[event.key] += 1
            reports[event.key] = []
        reports[event.key].append(event)
        if not frozen and len([key for key, got in reports.items() if not got[-1].over]) == 2:
            for process in processes_of(second):
                os.kill(process.pid, signal.SIGSTOP)
                frozen.append(process)
        # The trial that was on it is through some iterations of its second attempt.
        if sum(attempts.values()) == 3 and not back.is_set() and len(reports[event.key]) > 2:
            back.set()
            for process in frozen:
                if process.is_running():
                    os.kill(process.pid, signal.SIGCONT)

    settings = ExecutorSettings(
        workers=2, chunk_seconds=0.1, checkpoint_seconds=0.0, max_failures=1, cluster=nodes.address
    )
    try:
        TuneExecutor(settings, home).run(Listed(tasks), on_event)
    finally:
        for process in frozen:
            if process.is_running():
                os.kill(process.pid, signal.SIGCONT)
        nodes.remove_node(second, allow_graceful=False)
    assert back.is_set()
    assert failures == []
    assert sorted(attempts.values()) == [1, 2]
    for task in tasks:
        alone = Session(TrialTask(task.key, task.config, task.data_root)).advance(1e9)
        assert [(p.name, p.step, p.value) for r in reports[task.key] for p in r.points] == [
            (p.name, p.step, p.value) for p in alone.points
        ]
        left = checkpoint.check(Path(task.checkpoint or ""))
        assert left.key == task.key
