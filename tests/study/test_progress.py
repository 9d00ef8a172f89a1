"""What a run shows: lines, a live table, events."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from study.plan import Plan, Trial, make_plan
from study.progress import StudyProgress, duration
from study.spec import parse_spec
from trainables.history import Point
from trainables.session import Report

SPEC = """
id: little
title: A little study
profile: smoke
base: {tasks: {include: [normal, reshading]}}
baseline: single
rows:
  - {id: single, label: Single, set: {method: single_task}, per_task: true}
  - {id: gd, label: "GD [bold]", set: {method: gd}}
  - {id: again, label: GD again, set: {method: gd}}
"""


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(parse_spec(SPEC, "little.yaml"), seeds=2)


def console(*, terminal: bool, height: int = 40) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, height=height, color_system=None)


def said(where: Console) -> str:
    assert isinstance(where.file, io.StringIO)
    return where.file.getvalue()


def report(trial: Trial, progress: float, **over: Any) -> Report:
    points = [Point(f"val/{task}/l1", 6, 0.5) for task in trial.tasks]
    fields = {"done": progress == 1.0, **over}
    return Report(trial.key, int(6 * progress), progress, points, {"seconds": 2.0}, first=True, **fields)


def progress_of(plan: Plan, where: Console, events: list[Any] | None = None) -> StudyProgress:
    """The first trial was found; the others are expected to take 10 s each."""
    expected = {trial.key: 10.0 for trial in plan.trials[1:]}
    return StudyProgress(where, plan, 1, expected, 2, None if events is None else events.append)


def test_elsewhere_than_in_a_terminal_each_trial_is_a_line(plan: Plan) -> None:
    where = console(terminal=False)
    view = progress_of(plan, where)
    with view.shown():
        view.report(plan.trials[1], report(plan.trials[1], 0.5))
        view.report(plan.trials[1], report(plan.trials[1], 1.0))
        view.fail(plan.trials[2], "out of luck")
    lines = said(where).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"[2/6] {plan.trials[1].label}",
        f"[3/6] {plan.trials[2].label}",
    ]
    assert "FAILED: out of luck" in lines[1]
    # Three trials of 10 s are left to two workers, and the one that is through took a fifth of what was expected.
    assert view.to_go() == pytest.approx(3 * 10.0 / 2 * (2.0 / 10.0))


def test_the_live_view_has_a_row_for_each_row_with_its_trials(plan: Plan) -> None:
    where = console(terminal=True)
    view = progress_of(plan, where)
    gd = [trial for trial in plan.trials if trial.label.startswith("GD")]
    with view.shown():
        view.report(gd[0], report(gd[0], 1.0))
        view.report(gd[1], report(gd[1], 0.25))
        view.fail(plan.trials[1], "out of [luck]")
        where.print(view._render())
    text = said(where)
    assert "GD [bold]" in text  # no markup
    table = {line.split("  ")[0].strip(): line.split() for line in text.splitlines()}
    assert table["Single"][1:] == ["2/4", "1", "failed"]
    assert table["GD again"][2:] == ["1/2", "running"]  # the same trials as GD
    assert "failed: Single" in text
    assert "out of [luck]" in text
    assert "3/6 trials, 1 found finished, 1 failed, 1 running" in text
    assert "25%" in text


def test_a_low_terminal_shows_the_rows_at_work_and_counts_the_rest(plan: Plan) -> None:
    where = console(terminal=True, height=5)
    view = progress_of(plan, where)
    big = [f"row {index}" for index in range(50)]
    view._rows.update({name: type(view._rows["gd"])(name, 3) for name in big})
    where.print(view._render())
    assert "and 51 rows more" in said(where)
    assert len(said(where).splitlines()) < 10


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    where = console(terminal=True)
    view = progress_of(plan, where)
    with view.shown():
        view.report(plan.trials[1], report(plan.trials[1], 1.0))
    assert said(where).count("\n") == 1
    assert "\x1b" not in said(where)


def test_no_color_is_respected_in_the_live_view(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        where = Console(file=io.StringIO(), force_terminal=True, width=120, height=40, color_system="truecolor")
        view = progress_of(plan, where)
        view.fail(plan.trials[1], "out of luck")
        where.print(view._render())
        return said(where)

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m" in shown()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in shown()


def test_events_tell_machines_what_happens(plan: Plan) -> None:
    events: list[Any] = []
    view = progress_of(plan, console(terminal=False), events)
    with view.shown():
        view.report(plan.trials[1], report(plan.trials[1], 0.5))
        view.report(plan.trials[1], report(plan.trials[1], 0.6))  # within a second of the last
        view.report(plan.trials[1], report(plan.trials[1], 1.0))
        view.report(plan.trials[2], report(plan.trials[2], 0.5, diverged="loss is not finite"))
        view.fail(plan.trials[3], "out of luck")
    assert [event["event"] for event in events] == ["start", "progress", "done", "diverged", "failed"]
    start, progress, done, diverged, failed = events
    assert (start["study"], start["trials"], start["found"], start["left"]) == ("little", 6, 1, 5)
    assert (progress["progress"], progress["iteration"], progress["key"]) == (0.5, 3, plan.trials[1].key)
    assert (done["seconds"], done["over"]) == (2.0, 2)
    assert (diverged["reason"], failed["reason"], failed["over"]) == ("loss is not finite", "out of luck", 4)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599.6, "1 h 00 min"), (7500, "2 h 05 min")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
