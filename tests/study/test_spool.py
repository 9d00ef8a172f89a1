"""The spool against a store that fails at every point, on its own and with the journal cut or damaged."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.journal import Journal, Operation
from study.spool import Spool, leftovers, recover
from trainables.errors import StoreError


class DownError(Exception):
    """The store is away."""


class WrongError(Exception):
    """The store does not like the operation."""


class FakeStore:
    """A store in memory. ``script`` says of each write in turn whether it works, fails, or fails after its effect."""

    def __init__(self, script: list[str] | None = None) -> None:
        self.script = list(script or [])
        self.runs: dict[str, dict[str, Any]] = {}
        self.creations = 0
        self.down = False
        self.lock = threading.Lock()

    def _step(self) -> str:
        if self.down:
            return "before"
        return self.script.pop(0) if self.script else "ok"

    def _write(self, effect: Any) -> Any:
        with self.lock:
            step = self._step()
            if step == "before":
                raise DownError("connection refused")
            result = effect()
            if step == "after":
                raise DownError("connection reset")
            return result

    def find(self, run: str) -> str | None:
        if self.down:
            raise DownError("connection refused")
        return next((run_id for run_id, content in self.runs.items() if content["spool"] == run), None)

    def create(self, run: str, body: Mapping[str, Any]) -> str:
        def effect() -> str:
            self.creations += 1
            run_id = f"store-{self.creations}"
            self.runs[run_id] = {"spool": run, "log": [], "metrics": {}, "status": "RUNNING", "files": {}}
            return run_id

        return str(self._write(effect))

    def apply(self, run_id: str, kind: str, body: Mapping[str, Any], blob: bytes | None) -> None:
        if body.get("wrong"):
            raise WrongError("invalid value")

        def effect() -> None:
            run = self.runs[run_id]
            if kind == "metrics":
                for name, value, stamp, step in body["metrics"]:
                    run["metrics"].setdefault(name, {})[stamp, step] = value
            elif kind == "end":
                run["status"] = body["status"]
                run["reason"] = body.get("reason", "")
            elif kind == "artifact":
                run["files"][body["name"]] = blob
            run["log"].append((kind, body.get("mark")))

        self._write(effect)

    def points(self, run_id: str, names: list[str]) -> dict[str, int]:
        return {name: len(self.runs[run_id]["metrics"].get(name, {})) for name in names}

    def takes_writes(self) -> bool:
        return not self.down

    def temporary(self, error: Exception) -> bool:
        return isinstance(error, DownError)


def record(spool: Spool, run: str, chunks: int = 3) -> None:
    """What a driver writes of one trial."""
    spool.write(run, "create", {"name": run})
    spool.write(run, "params", {"mark": "params"})
    for chunk in range(chunks):
        spool.write(run, "metrics", {"metrics": [["loss", chunk / 7, 1000 + chunk, chunk]], "mark": chunk})
    spool.write(run, "artifact", {"name": "config.json"}, run.encode())
    spool.write(run, "end", {"status": "FINISHED", "counts": True})


def whole(store: FakeStore, runs: list[str], chunks: int = 3) -> None:
    """Every run is there once, with all it should have, its operations in order."""
    assert sorted(content["spool"] for content in store.runs.values()) == sorted(runs)
    for content in store.runs.values():
        assert content["status"] == "FINISHED"
        assert content["metrics"] == {"loss": {(1000 + c, c): c / 7 for c in range(chunks)}}
        assert content["files"] == {"config.json": content["spool"].encode()}
        marks = [mark for kind, mark in content["log"] if kind == "metrics"]
        assert list(dict.fromkeys(marks)) == list(range(chunks))
        assert marks == sorted(marks)


def longest_row(script: list[str]) -> int:
    """Of failures in a row; the store that takes other writes between them is one that refuses the operation."""
    return max((len(list(row)) for failed, row in groupby(script, lambda step: step != "ok") if failed), default=0)


def fast(folder: Path, store: FakeStore, owner: str = "me", **more: Any) -> Spool:
    return Spool(folder, owner, store, pauses=(0.001,), **more)


def test_a_store_that_answers_is_written_to_straight(tmp_path: Path) -> None:
    store = FakeStore()
    spool = fast(tmp_path, store)
    record(spool, "a")
    whole(store, ["a"])
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(script=st.lists(st.sampled_from(["ok", "before", "after"]), max_size=30).filter(lambda s: longest_row(s) < 5))
def test_whatever_fails_before_or_after_its_effect_all_is_delivered_once_in_order(script: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = FakeStore(script)
        spool = fast(Path(folder), store)
        for run in ("a", "b"):
            record(spool, run)
        assert spool.flush(30.0)
        whole(store, ["a", "b"])
        assert store.creations == 2
        assert list(Path(folder).iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(down_at=st.integers(0, 12), script=st.lists(st.sampled_from(["ok", "before", "after"]), max_size=8))
def test_what_a_killed_driver_left_is_delivered_by_the_next(down_at: int, script: list[str]) -> None:
    """The store goes away after some operations, the driver ends, and recovery itself fails a few times."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = FakeStore()
        spool = Spool(folder, "dead", store, pauses=(60.0,))
        original, calls = store._step, 0

        def step() -> str:
            nonlocal calls
            calls += 1
            store.down = store.down or calls > down_at
            return original()

        store._step = step  # type: ignore[method-assign]
        for run in ("a", "b"):
            record(spool, run)
        spool.stop()
        assert [path.name for path in leftovers(folder, lambda owner: owner == "dead")] == (
            ["dead.jsonl"] if down_at < 14 else []
        )
        store._step, store.down, store.script = original, False, script  # type: ignore[method-assign]
        for _ in range(10):
            try:
                recover(folder / "dead.jsonl", store)
                break
            except StoreError:
                continue
        whole(store, ["a", "b"])
        assert list(folder.iterdir()) == []


def away(folder: Path) -> FakeStore:
    """A store that was away while two runs were recorded."""
    store = FakeStore()
    store.down = True
    spool = Spool(folder, "dead", store, pauses=(60.0,))
    for run in ("a", "b"):
        record(spool, run)
    spool.stop()
    store.down = False
    return store


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_journal_never_makes_a_run_that_counts_and_is_not_whole(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = away(folder)
        path = folder / "dead.jsonl"
        raw = bytearray(path.read_bytes())
        if data.draw(st.booleans(), "cut"):
            del raw[data.draw(st.integers(0, len(raw)), "length") :]
        else:
            raw[data.draw(st.integers(0, len(raw) - 1), "place")] ^= data.draw(st.integers(1, 255), "bits")
        path.write_bytes(bytes(raw))
        recover(path, store)
        finished = [content for content in store.runs.values() if content["status"] == "FINISHED"]
        for content in finished:
            assert content["metrics"] == {"loss": {(1000 + c, c): c / 7 for c in range(3)}}
            assert content["files"] == {"config.json": content["spool"].encode()}
            assert [kind for kind, _ in content["log"]].count("params") == 1


def test_one_damaged_line_costs_its_own_run_alone(tmp_path: Path) -> None:
    store = away(tmp_path)
    path = tmp_path / "dead.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[3] = lines[3].replace(b"loss", b"lose")
    path.write_bytes(b"\n".join(lines))
    assert recover(path, store).refused == {"a": "some of its records are lost"}
    states = {content["spool"]: content["status"] for content in store.runs.values()}
    assert states == {"a": "KILLED", "b": "FINISHED"}


def test_a_damaged_artifact_costs_its_run(tmp_path: Path) -> None:
    store = away(tmp_path)
    blob = sorted((tmp_path / "dead.blobs").iterdir())[0]
    blob.write_bytes(b"else")
    (reason,) = recover(tmp_path / "dead.jsonl", store).refused.values()
    assert reason == f"{blob}: damaged (its checksum does not fit)"


def test_points_that_are_missing_in_the_store_are_noticed(tmp_path: Path) -> None:
    store = FakeStore(["ok", "ok", "ok", "before"])
    spool = fast(tmp_path, store)
    store.points = lambda run_id, names: dict.fromkeys(names, 2)  # type: ignore[method-assign]
    record(spool, "a")
    assert spool.flush(10.0)
    assert spool.refused("a") == "the store has not as many points of loss as were delivered"
    assert [content["status"] for content in store.runs.values()] == ["KILLED"]


def test_an_operation_the_store_will_never_take_costs_its_run_and_no_other(tmp_path: Path) -> None:
    for script in ([], ["before"]):
        store = FakeStore(script)
        spool = fast(tmp_path, store)
        spool.write("a", "create", {"name": "a"})
        spool.write("a", "params", {"wrong": True})
        record(spool, "b")
        spool.write("a", "end", {"status": "FINISHED", "counts": True})
        assert spool.flush(10.0)
        assert spool.refused("a") == "the store refuses its records: invalid value"
        assert {c["spool"]: c["status"] for c in store.runs.values()} == {"a": "KILLED", "b": "FINISHED"}


def test_one_that_fails_for_ever_while_others_do_not_is_given_up(tmp_path: Path) -> None:
    class Picky(FakeStore):
        def apply(self, run_id: str, kind: str, body: Mapping[str, Any], blob: bytes | None) -> None:
            if body.get("mark") == "params" and self.runs[run_id]["spool"] == "a":
                raise DownError("internal error")
            super().apply(run_id, kind, body, blob)

    store = Picky()
    spool = fast(tmp_path, store)
    record(spool, "a")
    record(spool, "b")
    assert spool.flush(10.0)
    assert spool.refused("a") == "the store refuses its records: internal error"
    assert {c["spool"]: c["status"] for c in store.runs.values()} == {"a": "KILLED", "b": "FINISHED"}


def test_a_driver_that_lost_a_trial_ends_its_run_as_killed(tmp_path: Path) -> None:
    reason = ""
    store = FakeStore()
    spool = fast(tmp_path, store, guard=lambda operation, run_id: reason)
    spool.write("a", "create", {"name": "a"})
    reason = "another driver took the trial over"
    spool.write("a", "end", {"status": "FINISHED", "counts": True})
    assert spool.refused("a") == reason
    assert [(c["status"], c["reason"]) for c in store.runs.values()] == [("KILLED", reason)]
    spool.write("b", "create", {"name": "b"})
    assert len(store.runs) == 1


def test_a_slow_store_is_not_waited_for(tmp_path: Path) -> None:
    gate = threading.Event()

    class Slow(FakeStore):
        def apply(self, run_id: str, kind: str, body: Mapping[str, Any], blob: bytes | None) -> None:
            if kind == "params":
                time.sleep(0.02)
            elif body.get("mark") == 0:
                assert gate.wait(30.0)
            super().apply(run_id, kind, body, blob)

    store = Slow()
    spool = Spool(tmp_path, "me", store, slow=0.01)
    record(spool, "a")  # Returns although the store holds on to the first metrics.
    assert spool.waiting == 5
    gate.set()
    assert spool.flush(10.0)
    whole(store, ["a"])


def test_a_full_disk_stops_the_driver_and_spoils_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "me.jsonl")
    journal.append(Operation("a", 0, "create", {"name": "a"}), None)
    before = journal.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StoreError, match=r"me\.jsonl: cannot be written: No space left on device"):
            journal.append(Operation("a", 1, "end", {"status": "FINISHED"}), None)
    assert journal.path.read_bytes() == before
    journal.append(Operation("a", 1, "end", {"status": "KILLED"}), None)
    assert [operation.body for _, operation in journal.read().waiting] == [{"name": "a"}, {"status": "KILLED"}]


@given(
    bodies=st.lists(
        st.dictionaries(st.text(max_size=5), st.one_of(st.floats(allow_nan=False), st.text(), st.integers())),
        max_size=6,
    ),
    acknowledged=st.integers(0, 6),
)
def test_a_journal_gives_back_what_was_put_in(bodies: list[dict[str, Any]], acknowledged: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "me.jsonl")
        written = [Operation("a", index, "tags", body) for index, body in enumerate(bodies)]
        for operation in written:
            journal.append(operation, "id")
        if 0 < acknowledged <= len(written):
            journal.delivered(acknowledged, "a", "id")
        else:
            acknowledged = 0
        contents = Journal(journal.path).read()
        assert [operation for _, operation in contents.waiting] == written[acknowledged:]
        assert contents.damaged == 0
        assert contents.next == ({"a": acknowledged} if written else {})
