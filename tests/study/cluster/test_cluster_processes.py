"""A trial whose processes are on two nodes: it trains, and the loss of one of the nodes is no failure of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from study.executors import ExecutorSettings, Failure, Listed, TuneExecutor
from study.faults import node_lost
from study.home import Home
from trainables.config import load_trial, trial_key
from trainables.presets import merge
from trainables.session import Report, TrialTask


def task_of(tiny: dict[str, Any], root: Path, iterations: int) -> TrialTask:
    over = {"method": "gd", "train": {"budget": {"amount": iterations}}, "record": {"eval_every": 0}}
    config = load_trial(merge(tiny, over))
    return TrialTask(trial_key(config), config.to_dict(), str(root))


@pytest.mark.ray
@pytest.mark.slow
def test_processes_on_two_nodes(nodes: Any, tiny: dict[str, Any], data_root: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.require()
    # The head has one CPU: the other process can be on the second node only.
    second = nodes.add_node(num_cpus=1)
    heard: list[Report | Failure] = []
    long = task_of(tiny, data_root, 100_000)

    def on_event(event: Report | Failure) -> None:
        heard.append(event)
        if event.key == long.key and isinstance(event, Report) and event.first:
            nodes.remove_node(second, allow_graceful=False)

    settings = ExecutorSettings(workers=1, chunk_seconds=0.1, max_failures=0, processes=2, cluster=nodes.address)
    TuneExecutor(settings, home).run(Listed([task_of(tiny, data_root, 4), long]), on_event)
    reports = [event for event in heard if isinstance(event, Report)]
    (done,) = (report for report in reports if report.done)
    assert (done.iteration, done.worker["processes"]) == (4, "2")
    assert any(report.key == long.key for report in reports)
    (failure,) = (event for event in heard if isinstance(event, Failure))
    assert failure.key == long.key
    assert node_lost(failure.reason), failure.reason
