"""How the cores of a machine are shared by the trials it runs at a time."""

from __future__ import annotations

import pytest

from study.executors.base import ExecutorSettings, Listed, share
from study.executors.relay import Feed, Relay
from trainables.data.loader import usable_cores
from trainables.session import TrialTask


@pytest.mark.parametrize(
    ("workers", "threads", "cores", "each"),
    [(1, 1, 16, 16), (4, 1, 16, 4), (3, 2, 16, 5), (16, 4, 16, 4), (0, 1, 6, 6)],
)
def test_trials_share_the_cores_and_keep_their_threads(workers: int, threads: int, cores: int, each: int) -> None:
    assert share(ExecutorSettings(workers=workers), threads, cores) == each


def test_without_a_number_it_is_this_machines() -> None:
    assert share(ExecutorSettings(workers=1), 1) == usable_cores()


def test_a_trial_on_ray_is_told_its_share() -> None:
    task = TrialTask("a" * 64, {"train": {"threads": 1}}, "data")
    given = Feed(Listed([task]), Relay(lambda event: None), 2, {"chunk_seconds": 1.0}, cores=5).suggest("0")
    assert isinstance(given, dict)
    assert TrialTask(**given["trial"]) == TrialTask("a" * 64, {"train": {"threads": 1}}, "data", cores=5)
