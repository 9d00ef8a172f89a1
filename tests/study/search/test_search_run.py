"""Real searches: real training, real MLflow, real Optuna storage, real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from contests import SPEC
from optuna.trial import TrialState

from study import schema
from study.cli import run
from study.executors import local
from study.executors.local import _serve as SERVE
from study.home import Home
from study.search.entries import DELTA_M, ORDINAL, POINT, RUN_ID, STATUS, TRIAL_KEY
from study.search.storage import open_storage
from study.tracking import open_client, search
from trainables.session import Report, Session

pytestmark = pytest.mark.slow

REAL = (
    SPEC.replace("pruner: {name: none}", "pruner: {name: asha, reduction: 2}")
    .replace("sampler: {name: random}", "sampler: {name: tpe, startup: 3}")
    .replace("trials: 12", "trials: 6")
)


def write(folder: Path, text: str = REAL) -> Path:
    path = folder / "little.yaml"
    path.write_text(text)
    return path


def arguments(spec: Path, home: Path, *more: str) -> list[str]:
    return ["search", str(spec), "--executor", "local", "--workers", "1", "--home", str(home), "--quiet", *more]


def proposed(home: Path) -> list[tuple[str, str, float | None, str]]:
    """Point, status, value and key of every trial of the search, in order."""
    storage = open_storage(Home(home))
    [study] = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=study, storage=storage).get_trials()
    assert not [t for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    # One whose driver died before it was fully asked for has a point, and is not of the budget.
    attributes = [t.user_attrs for t in trials if ORDINAL in t.user_attrs]
    return [(a[POINT], a[STATUS], a.get(DELTA_M), a[TRIAL_KEY]) for a in attributes]


def trial_runs(home: Path) -> list[Any]:
    return [
        run
        for run in search(open_client(Home(home)), f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'")
        if schema.OPTUNA_NUMBER in run.data.tags
    ]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that nothing disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    assert run(arguments(write(folder), folder / "home")) == 0
    return folder / "home"


def test_storage_records_and_keys_point_at_one_another(calm: Path) -> None:
    storage = open_storage(Home(calm))
    [name] = optuna.get_all_study_names(storage)
    runs = {run.info.run_id: run for run in trial_runs(calm)}
    trained = 0
    for trial in optuna.load_study(study_name=name, storage=storage).get_trials():
        own = runs[trial.user_attrs[RUN_ID]]
        tags = own.data.tags
        assert tags[schema.TRIAL_KEY] == trial.user_attrs[TRIAL_KEY]
        assert json.loads(tags[schema.POINT]) == json.loads(trial.user_attrs[POINT])
        assert tags[schema.OPTUNA_STUDY] == name
        if tags[schema.OPTUNA_NUMBER] == str(trial.number):
            trained += 1
            assert own.data.metrics["objective/delta_m"] == pytest.approx(trial.value)
            assert tags[schema.STATUS] == trial.user_attrs[STATUS]
    assert trained == len(runs) == 6


def test_the_test_split_is_not_looked_at_before_the_winner_is_chosen(calm: Path) -> None:
    for record in trial_runs(calm):
        assert not [name for name in record.data.metrics if name.startswith("test/")]
        assert [name for name in record.data.metrics if name.startswith("val/")]


def test_the_table_has_defaults_beside_tuned_on_fresh_seeds(calm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["table", "little", "--home", str(calm), "--format", "json"]) == 0
    text = capsys.readouterr().out
    assert "GD, default" in text
    winner = max((p for p in proposed(calm) if p[1] == schema.VALIDATED), key=lambda p: p[2] or 0.0)
    default = json.loads(proposed(calm)[0][0])
    assert ("GD, tuned" in text) or json.loads(winner[0]) == default


def test_run_again_nothing_is_trained(calm: Path) -> None:
    before = len(list(search(open_client(Home(calm)), f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'")))
    assert run(arguments(calm.parent / "little.yaml", calm)) == 0
    assert len(list(search(open_client(Home(calm)), f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'"))) == before


def test_the_dashboard_opens_on_a_search(calm: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "study", "ui", "--optuna", "--port", "18080", "--home"]
    server = subprocess.Popen([*command, str(calm)], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = next(line for line in server.stderr if "http://" in line).split()[2]
        assert address.startswith("http://127.0.0.1:")
        studies: list[dict[str, Any]] = []
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/api/studies", timeout=5) as answer:
                    studies = json.load(answer)["study_summaries"]
                break
            except OSError:
                time.sleep(0.2)
        assert [study["study_name"].startswith("little/smoke/gd/") for study in studies] == [True]
    finally:
        server.kill()
        server.wait()
    nowhere = subprocess.run(
        [*command, str(tmp_path / "none")], check=False, env=environment, capture_output=True, text=True
    )
    assert nowhere.returncode == 2
    assert "no search at" in nowhere.stderr
    assert not (tmp_path / "none").exists()


def test_a_larger_budget_goes_on_with_the_same_trials(calm: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(calm, home)
    first = proposed(calm)
    assert run(arguments(calm.parent / "little.yaml", home, "--trials", "8", "--no-final")) == 0
    assert proposed(home)[:6] == first
    assert len(proposed(home)) == 8


def start(spec: Path, home: Path, *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "study", *arguments(spec, home, *more)]
    command.remove("--quiet")
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_a_driver_killed_and_started_again_ends_with_the_trials_of_a_calm_one(calm: Path, tmp_path: Path) -> None:
    spec, home = write(tmp_path), tmp_path / "home"
    for line_to_die_after in ("trial 1 ", "trial 3 "):
        driver = start(spec, home)
        assert driver.stderr is not None
        for line in driver.stderr:
            if line_to_die_after in line:
                break
        time.sleep(0.05)
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    assert run(arguments(spec, home)) == 0
    assert proposed(home) == proposed(calm)
    runs = trial_runs(home)
    ended = [r.data.tags[schema.TRIAL_KEY] for r in runs if r.info.status == "FINISHED"]
    assert len(ended) == len(set(ended)) == 6
    assert not [r for r in runs if r.info.status == "RUNNING"]


def test_interrupted_once_it_finishes_what_runs_and_goes_on_later(calm: Path, tmp_path: Path) -> None:
    spec, home = write(tmp_path), tmp_path / "home"
    driver = start(spec, home, "--trials", "200")  # so many that the signal comes before the end on any machine
    assert driver.stderr is not None
    said = []
    for line in driver.stderr:
        said.append(line)
        if "trial 1 " in line:
            os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait() == 130
    assert any("Ctrl-C again stops them at their next checkpoint" in line for line in said)
    done = len(proposed(home))  # none of them is left running
    assert 2 <= done < 200
    assert proposed(home)[:6] == proposed(calm)[:done]
    assert run(arguments(spec, home, "--trials", str(done + 1), "--no-final")) == 0
    assert len(proposed(home)) == done + 1


def test_a_population_trains_every_part_once_and_ends_with_schedules(tmp_path: Path) -> None:
    text = SPEC.replace("{name: random}", "{name: pbt, population: 4}").replace("evaluations: 9", "evaluations: 3")
    home = tmp_path / "home"
    assert run(arguments(write(tmp_path, text), home)) == 0
    found = proposed(home)
    assert [status for _, status, _, _ in found].count(schema.VALIDATED) == 4
    assert [status for _, status, _, _ in found].count(schema.PRUNED) == 2
    steps = [json.loads(point)["optim.lr_steps"] for point, *_ in found if "lr_steps" in point]
    assert {step[-1][0] for step in steps} <= {3, 6}  # at the ends of the first two thirds
    assert len(steps) == 2
    samples = [run.data.metrics["cost/iterations"] for run in trial_runs(home) if run.info.status == "FINISHED"]
    assert len(samples) == 6
    assert not list((home / "checkpoints").rglob("*.ckpt"))


class Greedy(Session):
    """One trial of all runs out of memory once; who begins and ends is written down."""

    folder: Path

    def advance(self, seconds: float) -> Report:
        if self._first:
            self._note("begins")
            with suppress(FileExistsError):
                (self.folder / "struck").touch(exist_ok=False)
                self._note("ends")
                raise MemoryError("not enough memory")
        report = super().advance(seconds)
        if report.over:
            self._note("ends")
        return report

    def _note(self, what: str) -> None:
        with (self.folder / "notes").open("a") as file:
            file.write(f"{self.task.key} {what}\n")


def serve_greedy(folder: Path, connection: Any, begin: type[Session], *seconds: float) -> None:
    Greedy.folder = folder
    SERVE(connection, Greedy, *seconds)


def test_a_trial_without_memory_is_tried_once_more_when_nothing_runs_beside_it(
    calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, home = write(tmp_path, SPEC.replace("trials: 12", "trials: 4")), tmp_path / "home"
    shutil.copytree(calm, home)  # the baseline and the default are there
    (home / "optuna.db").unlink()
    monkeypatch.setattr(local, "_serve", partial(serve_greedy, tmp_path))
    command = arguments(spec, home, "--no-final")
    command[command.index("1")] = "2"
    assert run(command) == 0
    notes = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    greedy = max((key for key, _ in notes), key=[key for key, _ in notes].count)
    first = next(number for number, (key, what) in enumerate(notes) if (key, what) == (greedy, "ends"))
    again = notes.index([greedy, "begins"], first)
    assert notes[again + 1] == [greedy, "ends"]
    open_there = [what for _, what in notes[:again]]
    assert open_there.count("begins") == open_there.count("ends")
    assert {status for _, status, *_ in proposed(home)} == {schema.VALIDATED}


@pytest.mark.ray
def test_the_same_search_on_ray_makes_the_same_trials(calm: Path, tmp_path: Path) -> None:
    spec, home = write(tmp_path), tmp_path / "home"
    command = arguments(spec, home, "--no-final")
    command[command.index("local")] = "ray"
    assert run(command) == 0
    assert proposed(home) == proposed(calm)


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        ("gp", "none"),
        ("cmaes", "median"),
        ("nsga2", "patient"),
        ("nsga3", "hyperband"),
        ("random", "asha"),
        ("qmc", "none"),
        ("grid", "asha"),
        ("brute_force", "median"),
    ],
)
def test_every_sampler_and_pruner_trains_real_trials(sampler: str, pruner: str, calm: Path, tmp_path: Path) -> None:
    text = SPEC
    if sampler == "brute_force":
        text = text.replace("{float: [1.0e-4, 1.0e-1], log: true}", "[1.0e-3, 1.0e-2]")
    spec, home = write(tmp_path, text), tmp_path / "home"
    shutil.copytree(calm, home)  # its baseline and defaults need not be trained again
    (home / "optuna.db").unlink()
    chosen = ["--sampler", sampler, "--pruner", pruner, "--trials", "4", "--no-final"]
    assert run(arguments(spec, home, *chosen)) == 0
    found = proposed(home)
    assert len(found) == 4
    assert {status for _, status, _, _ in found} <= {schema.VALIDATED, schema.PRUNED}
    assert len({key for *_, key in found}) > 1
