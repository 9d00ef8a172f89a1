"""The head of a joined cluster goes away for good, and with it the run; on another one it goes on where it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from study import schema
from study.home import Home
from study.store import open_client, search

TRIALS = 3
SPEC = """
id: headless
title: A study whose cluster loses its head
profile: smoke
base:
  data: {image_size: 32, train: 8, val: 4, test: 4}
  tasks: {include: [normal, depth_zbuffer]}
  train: {batch_size: 2, budget: {amount: 250}}
baseline: gd
rows:
  - {id: gd, label: GD, set: {method: gd}}
"""
LIMIT_SECONDS = 240.0


def trials_of(home: Home) -> list[Any]:
    if not home.database.exists():
        return []
    return search(open_client(home), f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_head_that_is_lost_ends_the_run_and_another_takes_it_up(nodes: Any, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    spec = tmp_path / "headless.yaml"
    spec.write_text(SPEC)

    def start(address: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "study", "run", str(spec), "--seeds", str(TRIALS), "--device", "cpu"]
        command += ["--cluster", address, "--home", str(home.path), "--report-every", "0"]
        # Ray gives a head up after a minute otherwise.
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "RAY_gcs_rpc_server_reconnect_timeout_s": "10"}
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=environment, **options)

    first = start(nodes.address)
    until = time.monotonic() + LIMIT_SECONDS
    while not any(run.data.metrics for run in trials_of(home)):
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.2)
    nodes.remove_node(nodes.head_node, allow_graceful=False)
    said, _ = first.communicate(timeout=LIMIT_SECONDS)
    assert first.returncode != 0
    assert "GCS" in said
    before = Counter(run.info.status for run in trials_of(home))
    assert before["FINISHED"] < TRIALS
    other = type(nodes)(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        again = start(other.address)
        said_again, _ = again.communicate(timeout=LIMIT_SECONDS)
    finally:
        other.shutdown()
    assert again.returncode == 0, said_again
    runs = trials_of(home)
    finished = Counter(run.data.tags[schema.TRIAL_KEY] for run in runs if run.info.status == "FINISHED")
    assert sorted(finished.values()) == [1] * TRIALS
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED", "FAILED"}
