"""What a recorded study has cost, and when it is expected to end."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from study.overview import StatusOverview, TrialState, _expect
from study.resources import device_hours, held_tags

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def trial(row: str, seed: int, state: str, seconds: float = 0.0, host: str = "") -> TrialState:
    return TrialState(row, f"{row}{seed}", seed, ["depth"], state, seconds=seconds, host=host)


def test_what_is_left_is_told_by_the_finished_trials_of_the_row() -> None:
    trials = [
        trial("GD", 0, "complete", 100.0),
        trial("GD", 1, "running", 40.0),
        trial("GD", 2, "missing"),
        trial("MGDA", 0, "complete", 600.0),
        trial("MGDA", 1, "running", 500.0),
        trial("MGDA", 2, "failed", 10.0),
        trial("MGDA", 3, "interrupted", 700.0),
    ]
    seconds, end = _expect(trials, NOON)
    assert [one.seconds_left for one in trials] == [0, 60, 100, 0, 100, 0, 0]
    assert seconds == 260.0
    # Two at a time.
    assert end == "2026-03-01T12:02+00:00"


def test_a_row_without_a_finished_trial_is_taken_for_the_others() -> None:
    trials = [trial("GD", 0, "complete", 100.0), trial("MGDA", 0, "running", 10.0), trial("UW", 0, "running", 0.0)]
    seconds, end = _expect(trials, NOON)
    assert seconds == 190.0
    assert end == "2026-03-01T12:01+00:00"  # The longest of those that train takes 100 s.


@pytest.mark.parametrize(
    "trials",
    [
        [trial("GD", 0, "running", 10.0)],
        [trial("GD", 0, "complete", 10.0)],
        [trial("GD", 0, "complete", 10.0), trial("GD", 1, "failed", 10.0)],
        [trial("GD", 0, "complete", 10.0), trial("GD", 1, "missing")],
    ],
)
def test_no_end_is_made_up(trials: list[TrialState]) -> None:
    assert _expect(trials, NOON)[1] is None


def test_hours_are_of_the_devices_a_trial_held() -> None:
    assert device_hours(7200.0, {"device": "cuda NVIDIA H200", "held": "0.25"}) == ("GPU-hours", 0.5)
    assert device_hours(7200.0, {"device": "cpu x86_64", "held": "4"}) == ("core-hours", 8.0)
    assert device_hours(7200.0, {"device": "cuda NVIDIA H200"}) == ("GPU-hours", 2.0)  # A record without the tag.
    assert held_tags({"processes": "2", "threads": "3", "gpus": "0"}) == {"processes": "2", "held": "6"}
    assert held_tags({"processes": "2", "threads": "3", "gpus": "2"}) == {"processes": "2", "held": "2"}
    assert held_tags({}) == {}


def test_the_page_says_cost_hosts_and_end() -> None:
    done, running = trial("GD", 0, "complete", 100.0), trial("GD", 1, "running", 40.0, "node7")
    done.unit, done.hours = "GPU-hours", 1.5
    overview = StatusOverview(
        "little", "gpu", "running", {}, [done, running], {"GPU-hours": 1.5}, 60.0, "2026-03-01T12:01+00:00"
    )
    text = io.StringIO()
    overview.print(Console(file=text, width=160))
    assert "cost so far: 1.5 GPU-hours" in text.getvalue()
    assert "training now: 1 on node7" in text.getvalue()
    assert "expected end: 2026-03-01T12:01+00:00 (1 min 00 s of training left)" in text.getvalue()
