"""What Ray says of a node that is lost, and of a worker that is: told apart, on a real cluster."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from study.executors import ExecutorSettings, Failure, Listed, TuneExecutor
from study.faults import node_lost
from study.home import Home
from trainables.config import load_trial, trial_key
from trainables.errors import out_of_memory
from trainables.presets import merge
from trainables.session import Report, TrialTask


@pytest.mark.ray
@pytest.mark.slow
def test_a_lost_node_is_told_from_a_lost_worker(
    nodes: Any, tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    home.require()
    tasks = []
    for seed in range(2):
        config = load_trial(merge(tiny, {"method": "gd", "seed": seed, "train": {"budget": {"amount": 4000}}}))
        tasks.append(TrialTask(trial_key(config), config.to_dict(), str(data_root)))
    second = nodes.add_node(num_cpus=1)
    lost: list[str] = []
    failures: list[Failure] = []
    training: set[str] = set()

    def on_event(event: Report | Failure) -> None:
        if isinstance(event, Failure):
            failures.append(event)
            return
        training.add(event.key)
        if len(training) == 2 and not lost:
            lost.append("node")
            nodes.remove_node(second, allow_graceful=False)
        elif failures and len(lost) == 1:
            lost.append("worker")
            os.kill(int(event.worker["pid"]), signal.SIGKILL)

    settings = ExecutorSettings(
        workers=2, chunk_seconds=0.1, checkpoint_seconds=1e9, max_failures=0, cluster=nodes.address
    )
    TuneExecutor(settings, home).run(Listed(tasks), on_event)
    assert lost == ["node", "worker"]
    by_node, by_worker = failures
    assert by_node.key != by_worker.key
    assert node_lost(by_node.reason), by_node.reason
    assert not node_lost(by_worker.reason), by_worker.reason
    assert not out_of_memory(by_node.reason + by_worker.reason)
