"""The benchmark of sweeps counts what it says; how long anything takes is not asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.idle import IdleSession
from benchmarks.sweep import main, measure, verdicts
from benchmarks.sweepers import Ended, Load, Sweep, plan_of, tasks_for
from study.spec import MOST_SEEDS


def test_overhead_is_wall_time_that_is_no_training() -> None:
    # Two slots, 1 s of training a trial, a quarter of a second lost beside it: a pair ends each 1.25 s.
    ended = [Ended(1.25 * (index // 2), 1.0) for index in range(24)]
    efficiency, overhead = measure(ended, 2)
    assert efficiency == pytest.approx(1 / 1.25)
    assert overhead == pytest.approx(0.25 / 2)


def test_warm_up_is_left_out() -> None:
    slow = [Ended(10.0 * index, 1.0) for index in range(4)]
    rest = [Ended(30.0 + index + 1, 1.0) for index in range(6)]
    assert measure([*slow, *rest], 1)[0] < measure(rest, 1)[0] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="more than 4 trials"):
        measure(slow, 2)


@pytest.mark.parametrize("count", [1, 7, MOST_SEEDS, MOST_SEEDS + 5])
def test_a_load_has_as_many_distinct_trials(count: int, tmp_path: Path) -> None:
    load = Load(count, 0.0, 3, 1, idle=True)
    assert len(plan_of(load).trials) >= count
    tasks = tasks_for(load, tmp_path)
    assert len({task.key for task in tasks}) == len(tasks) == count


def test_an_idle_trial_reports_every_iteration_once(tmp_path: Path) -> None:
    (task,) = tasks_for(Load(1, 0.0, 3, 1, idle=True), tmp_path)
    session = IdleSession(task)
    reports = [session.advance(0.0) for _ in range(3)]
    assert [report.over for report in reports] == [False, False, True]
    assert [report.first for report in reports] == [True, False, False]
    assert [report.iteration for report in reports] == [1, 2, 3]
    assert reports[-1].history is not None


def test_verdicts_hold_numbers_against_the_targets() -> None:
    grown = {
        "mtl-study, local": {10: (0.1, Sweep([], 2**29)), 100: (0.13, Sweep([], 2**31))},
        "mtl-study, ray": {10: (0.1, Sweep([], 2**29)), 100: (0.11, Sweep([], 2**29))},
    }
    efficiencies = {"mtl-study, local": 0.95, "mtl-study, ray": 0.85}
    overheads = {"mtl-study, local": 0.05, "mtl-study, ray": 0.2, "Ray Tune": 2.0, "Ray Tune, actors reused": 1.0}
    lines = verdicts(efficiencies, overheads, grown, 3.0)
    assert [line.rpartition(" ")[2] for line in lines] == [
        *("met", "met", "met", "missed", "missed"),
        *("missed", "missed", "missed", "met", "met"),
        "met",
    ]


@pytest.mark.slow
def test_a_short_run_prints_a_row_for_each(tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    options = ["--trials", "6", "--seconds", "0", "--reports", "2", "--growth", "", "--cells", "0", "--raw", str(raw)]
    done = CliRunner().invoke(main, [*options, "--only", "mtl-study, local; bare loop"])
    assert done.exit_code == 0, done.output
    written = json.loads(raw.read_text(encoding="utf-8"))
    assert {name: len(entry["ended"]) for name, entry in written.items()} == {
        "mtl-study, local": 6,
        "bare loop": 6,
    }
    refused = CliRunner().invoke(main, ["--only", "nobody"])
    assert refused.exit_code == 2
    assert "bare loop" in refused.output
