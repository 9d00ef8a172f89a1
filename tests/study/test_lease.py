"""Leases over interleavings of drivers that come, go, stall and die; then together with the spool."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from test_spool import FakeStore, record

from study.journal import Operation
from study.lease import Leases, Presence, gone
from study.spool import Spool, leftovers, recover
from trainables.errors import StoreError

SECONDS = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def driver(folder: Path, clock: Clock, url: str = "") -> Leases:
    presence = Presence(folder / "drivers")
    return Leases(url or f"sqlite:///{folder}/leases.db", presence, seconds=SECONDS, clock=clock, local=clock)


def test_a_trial_has_one_driver_until_it_is_released(tmp_path: Path) -> None:
    clock = Clock()
    one, two = driver(tmp_path, clock), driver(tmp_path, clock)
    first = one.acquire("k")
    assert first is not None
    assert (first.token, first.expires) == (1, 1060.0)
    assert two.acquire("k") is None
    assert (one.owns("k"), two.owns("k")) == (True, False)
    assert two.live() == {"k"}
    one.release("k")
    second = two.acquire("k")
    assert second is not None
    assert second.token == 2
    assert not one.owns("k")


def test_a_lease_that_ran_out_is_taken_and_its_owner_told(tmp_path: Path) -> None:
    clock = Clock()
    one, two = driver(tmp_path, clock), driver(tmp_path, clock)
    one.acquire("k")
    one.acquire("l")
    clock.now += SECONDS + 1
    assert two.acquire("k") is not None
    assert one.renew() == {"k"}
    assert (one.owns("k"), one.owns("l")) == (False, True)
    one.release("k")  # Not its own any more: nothing happens.
    assert two.owns("k")


def test_a_driver_that_died_here_is_replaced_at_once(tmp_path: Path) -> None:
    clock = Clock()
    one, two = driver(tmp_path, clock), driver(tmp_path, clock)
    one.acquire("k")
    one.presence._file.close()  # What the kernel does with a process's locks.
    assert gone(tmp_path / "drivers", one.owner)
    assert two.live() == set()
    assert two.acquire("k") is not None
    assert not one.owns("k") or one.renew() == {"k"}


def test_nothing_is_known_of_a_driver_on_another_machine(tmp_path: Path) -> None:
    assert not gone(tmp_path, "00000000-1-abc")
    clock = Clock()
    far = Leases(
        f"sqlite:///{tmp_path}/leases.db",
        Presence(tmp_path / "far", "elsewhere"),
        seconds=SECONDS,
        clock=clock,
        local=clock,
    )
    near = driver(tmp_path, clock)
    far.acquire("k")
    assert near.acquire("k") is None
    clock.now += SECONDS + 1
    assert near.acquire("k") is not None


def test_stale_leases_are_dropped_and_tokens_go_on_growing(tmp_path: Path) -> None:
    clock = Clock()
    one, two = driver(tmp_path, clock), driver(tmp_path, clock)
    for key in ("k", "l"):
        one.acquire(key)
    two.acquire("m")
    clock.now += SECONDS - 1
    two.renew()
    clock.now += 2
    assert [(lease.key, lease.live) for lease in two.all()] == [("k", False), ("l", False), ("m", True)]
    assert two.drop_stale() == 2
    assert [lease.key for lease in two.all()] == ["m"]
    again = two.acquire("k")
    assert again is not None
    assert again.token == 2


def test_the_heartbeat_renews_tells_what_is_lost_and_gives_back(tmp_path: Path) -> None:
    presence = Presence(tmp_path / "drivers")
    one = Leases(f"sqlite:///{tmp_path}/leases.db", presence, seconds=0.6)
    other = driver(tmp_path, Clock())
    told = threading.Event()
    one.start(lambda lost: told.set() if lost == {"k"} else None)
    one.acquire("k")
    one.acquire("l")
    before = {lease.key: lease.expires for lease in one.all()}
    with other._transaction() as (connection, _):
        row = other._table.c.trial_key == "k"
        connection.execute(other._table.update().where(row).values(owner="thief", token=2))
    assert told.wait(10.0)
    assert {lease.key: lease.expires for lease in other.all()}["l"] > before["l"]
    one.stop()
    assert [lease.key for lease in other.all()] == ["k"]


def test_a_database_that_cannot_be_used_is_one_line_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "leases.db").write_text("not a database" * 100)
    with pytest.raises(StoreError, match=r"leases at .*leases\.db: file is not a database"):
        driver(tmp_path, Clock()).acquire("k")


def test_of_many_threads_that_ask_at_once_one_gets_it(tmp_path: Path) -> None:
    drivers = [driver(tmp_path, Clock()) for _ in range(8)]
    got: list[str] = []
    barrier = threading.Barrier(8)

    def ask(one: Leases) -> None:
        barrier.wait()
        for key in ("k", "l", "m"):
            if one.acquire(key):
                got.append(key)

    threads = [threading.Thread(target=ask, args=(one,)) for one in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == ["k", "l", "m"]


KEYS = st.sampled_from(["k", "l"])
WHO = st.integers(0, 2)


class Drivers(RuleBasedStateMachine):
    """Three drivers share two trials and a store that goes away and comes back; each may stall or die at any step."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        self.clock, self.store = Clock(), FakeStore()
        self.drivers: list[Leases] = []
        self.spools: list[Spool] = []
        self.attempts = 0
        for _ in range(3):
            self._start()

    def _start(self) -> None:
        one = driver(self.folder, self.clock)

        def guard(operation: Operation, run_id: str) -> str:
            key = operation.run.split("-")[0]
            if not one.owns(key):
                return "another driver took the trial over"
            return "another run of it was finished first" if self.finished(key, run_id) else ""

        self.drivers.append(one)
        self.spools.append(Spool(self.folder / "spool", one.owner, self.store, guard, pauses=(60.0,)))

    def finished(self, key: str, beside: str = "") -> int:
        runs = [run for run_id, run in self.store.runs.items() if run_id != beside]
        return sum(run["spool"].startswith(f"{key}-") and run["status"] == "FINISHED" for run in runs)

    @rule(who=WHO, key=KEYS)
    def take(self, who: int, key: str) -> None:
        # A driver looks for a finished run after it has the lease, never before.
        if self.drivers[who].acquire(key) and (self.store.down or self.finished(key)):
            self.drivers[who].release(key)

    @rule(who=WHO, key=KEYS)
    def train(self, who: int, key: str) -> None:
        if self.drivers[who]._held.get(key):
            self.attempts += 1
            record(self.spools[who], f"{key}-{self.attempts}")
            if not self.spools[who].waiting:
                self.drivers[who].release(key)

    @rule(who=WHO)
    def beat(self, who: int) -> None:
        self.drivers[who].renew()

    @rule(seconds=st.sampled_from([1.0, 29.0, 31.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(who=WHO)
    def die(self, who: int) -> None:
        self.spools[who].stop()
        self.drivers[who].presence._file.close()
        del self.spools[who], self.drivers[who]
        self._start()

    @rule()
    def go_away(self) -> None:
        self.store.down = True

    @precondition(lambda self: self.store.down)
    @rule()
    def come_back(self) -> None:
        self.store.down = False
        for one, spool in zip(self.drivers, self.spools, strict=True):
            spool.flush(10.0)
            for key in list(one._held):
                one.release(key)

    @precondition(lambda self: not self.store.down)
    @rule()
    def take_up(self) -> None:
        """A driver starts: it delivers what dead ones left, for trials that have no finished run."""

        def guard(operation: Operation, run_id: str) -> str:
            return "finished by another run" if self.finished(operation.run.split("-")[0], run_id) else ""

        for path in leftovers(self.folder / "spool", lambda owner: gone(self.folder / "drivers", owner)):
            recover(path, self.store, guard)

    @invariant()
    def one_driver_may_write(self) -> None:
        for key in ("k", "l"):
            assert sum(one.owns(key) for one in self.drivers) <= 1

    @invariant()
    def one_run_counts(self) -> None:
        assert max(self.finished(key) for key in ("k", "l")) <= 1

    @invariant()
    def what_counts_is_whole(self) -> None:
        for run in self.store.runs.values():
            if run["status"] == "FINISHED":
                assert run["metrics"] == {"loss": {(1000 + c, c): c / 7 for c in range(3)}}
                assert run["files"] == {"config.json": run["spool"].encode()}

    def teardown(self) -> None:
        for spool in self.spools:
            spool.stop()
        self._folder.cleanup()


Drivers.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestDrivers: Any = Drivers.TestCase
