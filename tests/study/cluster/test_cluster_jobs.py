from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from study.cli import run
from study.cluster.jobs import JobClient, checkout, is_job, runtime_environment
from study.cluster.state import Amount, ClusterState, cluster_state
from trainables.errors import ConfigError

pytest.importorskip("aiohttp_cors", reason="submitting jobs needs the extra 'cluster'")


def test_source_environment_sends_the_checkout_pinned_to_its_constraints() -> None:
    root = checkout()
    assert root is not None
    found = runtime_environment("source", root)
    assert found["working_dir"] == str(root)
    first, *rest = found["pip"]["packages"]
    assert first == "-c ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/constraints.txt"
    assert any(line.startswith("ray[tune]") for line in rest)
    assert any(line.startswith("torch>=") for line in rest)
    # What is sent holds the file that pins, and leaves out what no job reads.
    assert "/constraints.txt" not in found["excludes"]
    assert "/tests" in found["excludes"]


def test_image_environment_changes_no_package() -> None:
    assert set(runtime_environment("image")) == {"env_vars"}


def test_environments_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'image'"):
        runtime_environment("imgae")
    with pytest.raises(ConfigError, match="no checkout"):
        runtime_environment("source", None)


def test_job_ids_are_told_from_studies() -> None:
    assert is_job("mtl-study-table4-d5-1f0c33aa")
    assert is_job("raysubmit_x")
    assert not is_job("table4_d5")


def test_without_the_extra_the_commands_say_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp_cors", None)
    assert run(["logs", "--address", "http://127.0.0.1:9"]) == 2
    assert "pip install -c constraints.txt 'mtl-study[cluster]'" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["status"], ["logs"], ["submit", "table4_d5"]])
def test_where_no_dashboard_answers_it_is_said_in_one_line(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--address", "http://127.0.0.1:9"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: http://127.0.0.1:9: no Ray dashboard answers")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table4_d55"], "did you mean 'table4_d5'"),
        (["table4_d5", "--profile", "smoek"], "did you mean 'smoke'"),
        (["table4_d5", "--sedes", "3"], "No such option '--sedes'"),
        (["table4_d5", "--environment", "imgae"], "did you mean 'image'"),
    ],
)
def test_what_run_would_refuse_is_refused_before_anything_is_sent(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["submit", *words, "--address", "http://127.0.0.1:9"]) == 2
    assert message in capsys.readouterr().err


def state_once(client: JobClient, wanted: Callable[[ClusterState], bool]) -> ClusterState:
    for _ in range(60):
        state = cluster_state(client)
        if wanted(state):
            break
        time.sleep(0.5)
    return state


@pytest.mark.ray
@pytest.mark.slow
def test_a_wrong_token_is_told_from_a_wrong_address(dashboard: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("f" * 32)
    code = f"from study.cluster.jobs import JobClient\nJobClient({dashboard.url!r})"
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(wrong), "PATH": "", "HOME": str(tmp_path)}
    root = str(Path(__file__).parents[3])
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=root, check=False)
    assert "the cluster refuses the token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH" in said.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_state_shows_how_full_and_how_busy_the_gpus_are(token: Path, short_folder: Path, tmp_path: Path) -> None:
    # Three trials of half a GPU each, as Tune places them, on two GPUs that are only counted.
    script = tmp_path / "driver.py"
    script.write_text(
        "import sys, ray\n"
        "from ray.util.placement_group import placement_group\n"
        "from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Within\n"
        "class TrialTrainable:\n"
        "    def ready(self): return 1\n"
        f"here = ray.init('local', num_cpus=4, num_gpus=2, include_dashboard=True,"
        f" _temp_dir={str(short_folder / 'gpus')!r}, log_to_driver=False, logging_level='ERROR')\n"
        "actors = []\n"
        "for _ in range(3):\n"
        "    group = placement_group([{'CPU': 1, 'GPU': 0.5}])\n"
        "    ray.get(group.ready())\n"
        "    how = dict(num_cpus=1, num_gpus=0.5, scheduling_strategy=Within(group))\n"
        "    actors.append(ray.remote(TrialTrainable).options(**how).remote())\n"
        "actors.append(ray.remote(TrialTrainable).options(num_cpus=1).remote())\n"
        "ray.get([actor.ready.remote() for actor in actors])\n"
        "print('http://' + here.dashboard_url, flush=True)\n"
        "sys.stdin.read()\n"
    )
    driver = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    try:
        url = driver.stdout.readline().strip()
        state = state_once(
            JobClient(url), lambda state: bool(state.gpus.used) and state.nodes[0].cpu_percent is not None
        )
        (node,) = state.nodes
        assert (node.trials, node.gpu_trials, node.gpus) == (4, 3, Amount(1.5, 2))
        assert node.trials_per_gpu == 1.5
        assert node.cpu_percent is not None
        assert 0 <= node.cpu_percent <= 100
        text = io.StringIO()
        state.print(Console(file=text, width=160))
        assert f"Ray dashboard: {url}" in text.getvalue()
        targets = JobClient(url).client._do_request("GET", state.prometheus.removeprefix(url)).json()
        assert targets[0]["targets"]
    finally:
        driver.communicate("", timeout=60)


@pytest.mark.ray
@pytest.mark.slow
def test_state_counts_nodes_trials_and_what_they_take(dashboard: Any, tmp_path: Path) -> None:
    client = JobClient(dashboard.url)
    empty = state_once(client, lambda state: bool(state.nodes))
    assert (empty.cpus, empty.gpus, empty.trials, empty.pending) == (Amount(0, 2), Amount(0, 0), 0, 0)
    assert [node.head for node in empty.nodes] == [True]
    # Three workers of one CPU each, of which two fit, from another process as a study would be.
    script = tmp_path / "driver.py"
    script.write_text(
        "import sys, ray\n"
        "from ray import tune\n"
        "class TrialTrainable(tune.Trainable):\n"
        "    def ready(self): return 1\n"
        f"ray.init({dashboard.address!r}, log_to_driver=False, logging_level='ERROR')\n"
        "Actor = ray.remote(num_cpus=1)(tune.with_resources(TrialTrainable, {'cpu': 1}))\n"
        "actors = [Actor.remote() for _ in range(3)]\n"
        "ray.wait([actor.ready.remote() for actor in actors], num_returns=2)\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
    )
    driver = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    try:
        assert driver.stdout.readline() == "up\n"
        # The autoscaler's report, where the amounts are from, comes every few seconds.
        busy = state_once(client, lambda state: state.cpus.used > 0)
        assert (busy.trials, busy.pending) == (2, 1)
        assert busy.nodes[0].trials == 2
        assert busy.cpus == Amount(2, 2)
        assert (busy.nodes[0].gpu_trials, busy.nodes[0].trials_per_gpu) == (0, None)
        assert json.loads(json.dumps(busy.to_dict()))["nodes"][0]["cpus"] == {"used": 2.0, "total": 2.0}
    finally:
        driver.communicate("", timeout=30)
