"""A study on a cluster of several nodes: the records are those of one process, and a lost node costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from little import console, results

from study.executors import ExecutorSettings, Failure, Listed, TuneExecutor
from study.home import Home
from study.plan import Plan, make_plan
from study.runner import resolve_device, run_study
from study.spec import parse_spec
from trainables.config import load_trial, trial_key
from trainables.errors import ConfigError
from trainables.presets import merge
from trainables.session import Report, Session, TrialTask

SPEC = """
id: spread
title: A study over two nodes
profile: smoke
base:
  data: {image_size: 32, train: 8, val: 4, test: 4}
  tasks: {include: [normal, depth_zbuffer]}
  train: {batch_size: 2, budget: {amount: 6}}
  record: {eval_every: 3, points: 3}
baseline: gd
rows:
  - {id: gd, label: GD, set: {method: gd}}
  - {id: selective, label: Selective, set: {method: {name: selective, beta: 0.5}}}
"""


def plan() -> Plan:
    return make_plan(parse_spec(SPEC, "spread.yaml"), seeds=2)


def test_another_cluster_is_for_ray_alone(tmp_path: Path) -> None:
    settings = ExecutorSettings(cluster="10.0.0.1:6379")
    with pytest.raises(ConfigError, match="--executor local: trains on this machine"):
        run_study(plan(), Home(tmp_path), executor="local", settings=settings, console=console())


@pytest.mark.ray
@pytest.mark.slow
def test_a_study_on_two_nodes_leaves_the_records_of_one_process(nodes: Any, tmp_path: Path) -> None:
    one, two = Home(tmp_path / "one"), Home(tmp_path / "two")
    quick = ExecutorSettings(workers=1, chunk_seconds=0.0, checkpoint_seconds=0.0)
    assert run_study(plan(), one, executor="local", settings=quick, device="cpu", console=console()).trained == 4
    second = nodes.add_node(num_cpus=1)
    try:
        # 0: as many as the cluster holds, here one for each node.
        spread = ExecutorSettings(workers=0, chunk_seconds=0.0, checkpoint_seconds=0.0, cluster=nodes.address)
        outcome = run_study(plan(), two, settings=spread, device="auto", console=console())
    finally:
        nodes.remove_node(second)
    assert (outcome.trained, outcome.failures) == (4, [])
    assert results(two, "spread") == results(one, "spread")
    assert len(results(two, "spread")) > 8


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_lost_in_the_middle_loses_nothing(
    nodes: Any, tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    home.require()
    tasks = []
    for seed in range(2):
        config = load_trial(merge(tiny, {"method": "gd", "seed": seed, "train": {"budget": {"amount": 300}}}))
        key = trial_key(config)
        tasks.append(TrialTask(key, config.to_dict(), str(data_root), str(tmp_path / f"{key}.ckpt")))
    second = nodes.add_node(num_cpus=1)
    lost, failures = [], []
    attempts: dict[str, int] = {}
    reports: dict[str, list[Report]] = {}

    def on_event(event: Report | Failure) -> None:
        if isinstance(event, Failure):
            failures.append(event)
            return
        if event.first:
            attempts[event.key] = attempts.get(event.key, 0) + 1
            reports[event.key] = []
        reports[event.key].append(event)
        # Both nodes train now, each the one trial it has room for.
        if not lost and len([key for key, got in reports.items() if not got[-1].over]) == 2:
            lost.append(True)
            nodes.remove_node(second, allow_graceful=False)

    settings = ExecutorSettings(
        workers=2, chunk_seconds=0.1, checkpoint_seconds=0.0, max_failures=2, cluster=nodes.address
    )
    TuneExecutor(settings, home).run(Listed(tasks), on_event)
    assert lost
    assert failures == []
    assert set(reports) == {task.key for task in tasks}
    assert all(got[-1].done for got in reports.values())
    assert sum(attempts.values()) == 3, "one trial was taken up again by the node that was left"
    for task in tasks:
        alone = Session(TrialTask(task.key, task.config, task.data_root)).advance(1e9)
        assert [(p.name, p.step, p.value) for r in reports[task.key] for p in r.points] == [
            (p.name, p.step, p.value) for p in alone.points
        ]


def test_the_device_is_one_of_the_cluster() -> None:
    from study.cluster.connect import Connection

    with_gpus = Connection("10.0.0.1:6379", nodes=2, machines=2, cpus=16.0, gpus=4.0, started=False)
    without = Connection("10.0.0.1:6379", nodes=2, machines=2, cpus=16.0, gpus=0.0, started=False)
    assert resolve_device("auto", with_gpus) == resolve_device("cuda", with_gpus) == "cuda"
    assert resolve_device("auto", without) == "cpu"
    with pytest.raises(ConfigError, match=r"--device cuda: 10.0.0.1:6379 has no GPU"):
        resolve_device("cuda", without)
    assert with_gpus.slots(threads=2, gpus_per_trial=0.0) == 8
    assert with_gpus.slots(threads=1, gpus_per_trial=0.5) == 8
    assert with_gpus.slots(threads=8, gpus_per_trial=0.5) == 2
    assert without.slots(threads=99, gpus_per_trial=0.0) == 1
