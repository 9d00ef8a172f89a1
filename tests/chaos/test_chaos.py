"""The short version: a few rounds by fixed seeds. ``make chaos N=200`` is the long one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .faults import ALL, Fault, draw
from .rounds import KINDS, Arena, Round, Tally, _damage, drawn
from .servers import installed
from .sweep import Result


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("seed", "kind"), [(1001, None), (514, "postgres"), (602, "server")])
def test_a_disturbed_sweep_ends_as_an_undisturbed_one(arena: Arena, seed: int, kind: str | None) -> None:
    if kind == "postgres" and not installed():
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    tally = Tally()
    arena.hold(drawn(seed, [kind] if kind else KINDS), tally)
    assert tally.wrong == 0, tally.failures
    assert tally.faults > 0


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    return Arena(tmp_path_factory.mktemp("chaos"))


def test_rounds_are_drawn_from_their_seed_alone() -> None:
    assert [drawn(seed) for seed in range(50)] == [drawn(seed) for seed in range(50)]
    assert {drawn(seed).kind for seed in range(100)} == set(KINDS)
    assert {draw(random.Random(seed), ALL).point for seed in range(2000)} == set(ALL)


@pytest.mark.parametrize(
    ("found", "lost", "repeated", "different", "odd"),
    [
        (Result({"a": [1], "b": [2]}), 0, 0, 0, 0),
        (Result({"a": [1]}), 1, 0, 0, 0),
        (Result({"a": [1, 1], "b": [2]}), 0, 1, 0, 0),
        (Result({"a": [1], "b": [3]}), 0, 0, 1, 0),
        (Result({"a": [1], "b": [2], "c": [2]}), 0, 0, 1, 0),
        (Result({"a": [1], "b": [2]}, [("point", "complete")]), 0, 0, 1, 0),
        (Result({"a": [1], "b": [2]}, odd=["run x is RUNNING"]), 0, 0, 0, 1),
    ],
)
def test_what_is_lost_repeated_or_different_is_counted(
    found: Result, lost: int, repeated: int, different: int, odd: int
) -> None:
    tally, problems = Tally(), list[str]()
    Arena._judge(Result({"a": [1], "b": [2]}), found, tally, problems)
    assert (tally.lost, tally.repeated, tally.different, tally.odd) == (lost, repeated, different, odd)
    assert bool(problems) == bool(tally.wrong)


def test_a_store_may_be_away_for_longer() -> None:
    planned = Round(0, "store", ((Fault("the store", "lock", 3, 7.0), Fault("a report", "kill", 2)),))
    longer = planned.lasting(90.0)
    assert [fault.seconds for fault in longer.runs[0]] == [90.0, 0.0]
    assert longer.limit > planned.limit > 90.0
    assert str(longer).endswith("90 s without a server")


def test_damage_changes_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "ab" / "ab.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(100))
    (tmp_path / "struck").mkdir()
    _damage(tmp_path, random.Random(0), tmp_path / "struck")
    assert path.read_bytes() != bytes(100)
    assert len(list((tmp_path / "struck").iterdir())) == 1


def test_a_round_says_what_it_does() -> None:
    planned = drawn(0)
    assert isinstance(planned, Round)
    assert str(planned).startswith(f"{planned.kind}: ")
    assert all(str(fault) in str(planned) for run in planned.runs for fault in run)
