"""Trials of several processes through the executors: one of the processes killed, the result that of one process."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from study.cluster.connect import Connection, fitted
from study.executors import ExecutorSettings, Failure, Listed, Verdict, make_executor
from study.home import Home
from study.resources import Resources, settled
from study.spec import parse_spec
from trainables.config import load_trial, trial_key
from trainables.errors import ConfigError
from trainables.presets import merge
from trainables.session import Report, Session, TrialTask

NAMES = {"local": "trainables.peer", "ray": "ray::PeerActor"}
"""What the command line of a process after the first holds."""


def task_of(tiny: dict[str, Any], root: Path, folder: Path) -> TrialTask:
    over = {
        "method": {"name": "selective", "beta": 0.5},
        "model": {"drop_path": 0.0},
        "train": {"budget": {"amount": 6}},
    }
    config = load_trial(merge(tiny, over))
    key = trial_key(config)
    return TrialTask(key, config.to_dict(), str(root), str(folder / f"{key}.ckpt"))


def beside(executor: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(NAMES[executor] in part for part in process.cmdline()):
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_killed_process_ends_the_attempt_and_not_the_trial(
    executor: str, tiny: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    task = task_of(tiny, data_root, tmp_path)
    heard: list[Report | Failure] = []

    def on_event(event: Report | Failure) -> Verdict:
        heard.append(event)
        if len(heard) == 2:
            (other,) = beside(executor)
            other.kill()
        return Verdict.GO

    home = Home(tmp_path / "home")
    home.require()
    settings = ExecutorSettings(workers=1, chunk_seconds=0.0, checkpoint_seconds=0.0, processes=2)
    make_executor(executor, settings, home).run(Listed([task]), on_event)
    reports = [event for event in heard if isinstance(event, Report)]
    assert len(reports) == len(heard)
    first = [index for index, report in enumerate(reports) if report.first]
    assert len(first) == 2  # Two attempts, the second from the checkpoint of the first.
    assert reports[first[1]].iteration > 1
    assert reports[-1].done
    assert {report.worker["processes"] for report in reports} == {"2"}
    assert beside(executor) == []
    alone = Session(replace(task, checkpoint=None)).advance(1e9)
    found = {(p.name, p.step): p.value for report in reports[first[1] :] for p in report.points}
    assert found == pytest.approx({(p.name, p.step): p.value for p in alone.points}, rel=2e-3, abs=1e-5, nan_ok=True)


# ---- how many there are ------------------------------------------------------------------------------

AUTO = ExecutorSettings(processes=0, measure_gpus=True)


@pytest.mark.parametrize(
    ("settings", "device", "resources", "expected"),
    [
        (AUTO, "cpu", {}, (1, 1.0, True)),
        (AUTO, "cuda", {}, (1, 1.0, True)),
        (AUTO, "cuda", {"gpus": 2}, (2, 2.0, False)),
        (AUTO, "cpu", {"gpus": 2}, (1, 1.0, True)),
        (AUTO, "cpu", {"processes": 2}, (2, 1.0, False)),
        (AUTO, "cuda", {"processes": 2}, (2, 2.0, False)),
        (replace(AUTO, processes=2), "cuda", {"gpus": 3}, (2, 2.0, False)),
        (replace(AUTO, processes=1), "cuda", {"gpus": 2}, (1, 1.0, True)),
        (ExecutorSettings(processes=0, gpus_per_trial=2.0), "cuda", {}, (2, 2.0, False)),
        (ExecutorSettings(processes=0, gpus_per_trial=2.0), "cpu", {}, (1, 2.0, False)),
        (ExecutorSettings(processes=0, gpus_per_trial=0.5), "cuda", {"gpus": 2}, (1, 0.5, False)),
        (ExecutorSettings(), "cuda", {"gpus": 2}, (1, 1.0, False)),
    ],
)
def test_options_go_before_the_study(
    settings: ExecutorSettings, device: str, resources: dict[str, int], expected: tuple[int, float, bool], tiny: Any
) -> None:
    found = settled(settings, device, [load_trial(merge(tiny, {"train": {"batch_size": 4}}))], Resources(**resources))
    assert (found.processes, found.gpus_per_trial, found.measure_gpus) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ExecutorSettings(gpus_per_trial=1.5), r"--gpus-per-trial 1.5: above 1, a whole number is wanted"),
        (
            ExecutorSettings(gpus_per_trial=2.0, processes=3),
            r"--gpus-per-trial 2: above 1, a whole number for 3 processes is wanted",
        ),
        (
            ExecutorSettings(gpus_per_trial=0.5, processes=2),
            r"--gpus-per-trial 0.5: 2 processes train a trial on a GPU each",
        ),
        (
            ExecutorSettings(processes=3),
            r"--processes 3: a trial has batches of 2; each process needs a sample",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(settings: ExecutorSettings, message: str, tiny: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        settled(settings, "cuda", [load_trial(tiny)])


def test_trials_of_several_processes_take_as_many_places() -> None:
    two = ExecutorSettings(workers=8, processes=2, measure_workers=True)
    here = fitted(two, None, 2, "cpu")
    assert (here.workers, here.measure_workers) == (2, False)
    assert fitted(here, None, 2, "cpu").workers == 2
    assert fitted(ExecutorSettings(workers=8, processes=2), None, 2, "cpu").workers == 8
    cluster = Connection("head:6379", nodes=2, machines=2, cpus=16, gpus=4, started=False)
    joined = ExecutorSettings(workers=0, processes=2, gpus_per_trial=2.0)
    assert fitted(joined, cluster, 1, "cuda").workers == 2
    assert fitted(joined, cluster, 4, "cpu").workers == 2


def test_a_study_names_its_resources() -> None:
    text = "id: tiny\ntitle: tiny\nbaseline: gd\nrows: [{id: gd, label: GD}]\nresources: {gpus: %s}\n"
    assert parse_spec(text % 2, "tiny.yaml").resources == Resources(gpus=2)
    with pytest.raises(ConfigError, match=r"resources.gpus"):
        parse_spec(text % 0, "tiny.yaml")
