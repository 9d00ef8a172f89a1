"""Records on their way to a store that may be away: straight through while it answers, by way of the disk while not.

Every change is an :class:`Operation` that may be repeated without harm: a run is created under a tag by which an
ambiguous creation is found again, metrics carry their time stamps, the rest sets what it sets. So delivering at least
once, in order, is delivering once. When a call fails or takes long, operations go into a :class:`Journal` and a thread
delivers them, the oldest first, trying again at growing intervals; training does not wait for it. What a driver that
ended left behind is delivered by the next one (:func:`recover`).
"""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from study.faults import first_line
from study.journal import CREATE, END, SUFFIX, Journal, Operation
from trainables.errors import StoreError

logger = logging.getLogger(__name__)

SLOW_SECONDS = 5.0
"""After a call that takes longer, what follows goes by way of the disk for a while."""
_HOLD = 6.0
"""That while, in lengths of a slow call."""
_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_TRIES = 5
"""Of one operation, while the store takes other writes after each, before its run is given up."""


class Sink(Protocol):
    """The store, as the spool sees it. Every method may raise; :meth:`temporary` says what may be tried again."""

    def find(self, run: str) -> str | None:
        """The store's id of a run it created before, by this side's id."""
        ...

    def create(self, run: str, body: Mapping[str, Any]) -> str:
        """Create a run; returns the store's id."""
        ...

    def apply(self, run_id: str, kind: str, body: Mapping[str, Any], blob: bytes | None) -> None:
        """Any other operation; once or several times, with the same effect."""
        ...

    def points(self, run_id: str, names: list[str]) -> dict[str, int]:
        """How many points each of the metrics has."""
        ...

    def takes_writes(self) -> bool:
        """Whether the store takes a write that has nothing to do with any run. Does not raise."""
        ...

    def temporary(self, error: Exception) -> bool:
        """Whether the error says something about the store's state, not about the operation."""
        ...


Guard = Callable[[Operation, str], str]
"""Asked before a run is created, before it ends whole, and when it is marked so, with the store's id of the run (empty
before it has one): an end that is delivered a second time finds the run finished by the first. What it answers, if
anything, is why the run must not count. It is then ended as killed, with that reason. A :class:`StoreError` means: not
known now, to be asked again."""


class Refused(Exception):  # noqa: N818 - says what became of a run
    """An operation that the store will never take, or a run that must not be written any more."""


class Delivery:
    """Brings operations into the store, each run's in order.

    Args:
        sink: the store.
        guard: says which runs must not count.
        confirm: says so once more when they are marked.
    """

    def __init__(self, sink: Sink, guard: Guard, confirm: Guard = lambda operation, run_id: "") -> None:
        self.sink = sink
        self.guard = guard
        self.confirm = confirm
        self.ids: dict[str, str] = {}
        self.next: dict[str, int] = {}
        self.refused: dict[str, str] = {}

    def deliver(self, operation: Operation, *, again: bool) -> None:
        """Do it.

        Args:
            operation: with its blob.
            again: whether it may have been done before, or others of its run came by way of the disk.

        Raises:
            Refused: never to be tried again; the run is closed as killed as far as the store lets us.
            Exception: of the sink or the guard, where it may be tried again.
        """
        run = operation.run
        if run in self.refused:
            return
        if run not in self.ids and operation.kind != CREATE:
            raise self.refuse(run, "the beginning of its records is lost")
        if operation.index > self.next.get(run, operation.index):
            raise self.refuse(run, "some of its records are lost")
        try:
            self._do(operation, again)
        except (Refused, StoreError):
            raise
        except Exception as error:
            if self.sink.temporary(error):
                raise
            raise self.refuse(run, f"the store refuses its records: {first_line(error)}") from error
        self.next[run] = operation.index + 1

    def _do(self, operation: Operation, again: bool) -> None:
        run = operation.run
        counts = operation.kind == END and operation.body.get("counts", False)
        reason = self.guard(operation, self.ids.get(run, "")) if counts or operation.kind == CREATE else ""
        if operation.kind == CREATE:
            found = self.sink.find(run) if again else None
            if reason:
                if found is not None:
                    self.ids[run] = found
                raise self.refuse(run, reason)
            self.ids[run] = found or self.sink.create(run, operation.body)
            return
        if reason:
            raise self.refuse(run, reason)
        points: Mapping[str, int] = operation.body.get("points", {})
        if counts and again and points:
            there = self.sink.points(self.ids[run], list(points))
            short = sorted(name for name, count in points.items() if there.get(name, 0) != count)
            if short:
                raise self.refuse(run, f"the store has not as many points of {short[0]} as were delivered")
        self.sink.apply(self.ids[run], operation.kind, operation.body, operation.blob)
        late = self.confirm(operation, self.ids[run]) if counts else ""
        if late:
            raise self.refuse(run, late)

    def refuse(self, run: str, reason: str) -> Refused:
        """Give a run up: nothing of it is delivered any more, and it is ended as killed."""
        self.refused[run] = reason
        if run in self.ids:
            try:
                self.sink.apply(self.ids[run], END, {"status": "KILLED", "reason": reason}, None)
            except Exception as error:  # noqa: BLE001 - it is closed as an orphan later
                logger.warning("run %s is not closed: %s", self.ids[run], first_line(error))
        return Refused(reason)


class Spool:
    """Where a driver's records go.

    Args:
        folder: for the journal.
        owner: id of the driver.
        sink: the store.
        guard: says which runs must not count; by default all may.
        confirm: says so once more when they are marked.
        slow: seconds a call may take.
        pauses: seconds between attempts at a store that does not answer; the last one repeats.
    """

    def __init__(
        self,
        folder: Path,
        owner: str,
        sink: Sink,
        guard: Guard = lambda operation, run_id: "",
        confirm: Guard = lambda operation, run_id: "",
        *,
        slow: float = SLOW_SECONDS,
        pauses: tuple[float, ...] = _PAUSES,
    ) -> None:
        self.journal = Journal(folder / f"{owner}{SUFFIX}")
        self._delivery = Delivery(sink, guard, confirm)
        self._slow = slow
        self._pauses = pauses
        self._waiting: deque[tuple[int, Operation]] = deque()
        self._indices: Counter[str] = Counter()
        self._points: dict[str, dict[str, set[tuple[int, int]]]] = {}
        self._by_disk: set[str] = set()
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._hold = 0.0
        self._hurry = False
        self.away = ""
        """Why the store is thought to be away, in one line; empty while it answers."""

    @property
    def waiting(self) -> int:
        """Operations that are not delivered."""
        with self._lock:
            return len(self._waiting)

    def adopt(self, run: str, run_id: str) -> None:
        """Know a run that the store has already."""
        self._delivery.ids[run] = run_id

    def run_id(self, run: str) -> str:
        """The store's id of a run, or this side's while it has none."""
        return self._delivery.ids.get(run, run)

    def refused(self, run: str) -> str:
        """Why a run was given up; empty where it was not."""
        return self._delivery.refused.get(run, "")

    def write(self, run: str, kind: str, body: Mapping[str, Any], blob: bytes | None = None) -> None:
        """Deliver a change, or put it where it will be delivered from.

        Raises:
            StoreError: neither the store nor the disk takes it.
        """
        if kind == "metrics":
            seen = self._points.setdefault(run, {})
            for name, _, stamp, step in body["metrics"]:
                seen.setdefault(name, set()).add((stamp, step))
        if kind == END:
            points = {name: len(stamps) for name, stamps in self._points.pop(run, {}).items()}
            body = {**body, "points": points}
        operation = Operation(run, self._indices[run], kind, body, blob)
        self._indices[run] += 1
        with self._lock:
            if self._thread is not None:
                self._append(operation)
                return
        started = time.monotonic()
        try:
            self._delivery.deliver(operation, again=run in self._by_disk)
        except Refused as error:
            logger.warning("run %s is given up: %s", run, error)
        except Exception as error:  # noqa: BLE001 - a store that is away is no reason to stop
            self.away = first_line(error)
            logger.warning("the store is away (%s); records go to %s meanwhile", self.away, self.journal.path)
            with self._lock:
                self._append(operation)
                self._start()
        else:
            if self._was_slow(started):
                with self._lock:
                    self._start()

    def _was_slow(self, started: float) -> bool:
        ended = time.monotonic()
        if ended - started <= self._slow:
            return False
        self._hold = ended + _HOLD * self._slow
        return True

    def _append(self, operation: Operation) -> None:
        number = self.journal.append(operation, self._delivery.ids.get(operation.run))
        self._by_disk.add(operation.run)
        self._waiting.append((number, operation))
        self._lock.notify_all()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._drain, name="spool", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        failed = refusals = 0
        while True:
            with self._lock:
                if self._stopped:
                    return
                if not self._waiting and time.monotonic() < self._hold:
                    left = self._hold - time.monotonic()
                    self._lock.wait_for(lambda: self._stopped or self._hurry or self._waiting, left)
                    self._hurry = False
                    continue
                if not self._waiting:
                    if failed == 0 and self.away:
                        logger.warning("the store is back; all records are delivered")
                    self.journal.remove()
                    self.away, self._thread = "", None
                    self._lock.notify_all()
                    return
                number, operation = self._waiting[0]
            started = time.monotonic()
            try:
                self._delivery.deliver(operation, again=True)
            except Refused as error:
                logger.warning("run %s is given up: %s", operation.run, error)
            except Exception as error:  # noqa: BLE001 - tried again
                self.away, failed = first_line(error), failed + 1
                refusals = refusals + 1 if self._delivery.sink.takes_writes() else 0
                if refusals >= _TRIES and not isinstance(error, StoreError):
                    self._delivery.refuse(operation.run, f"the store refuses its records: {self.away}")
                    continue
                with self._lock:
                    pause = self._pauses[min(failed, len(self._pauses)) - 1]
                    self._lock.wait_for(lambda: self._stopped or self._hurry, pause)
                    self._hurry = False
                continue
            failed = refusals = 0
            self._was_slow(started)
            with self._lock:
                self._waiting.popleft()
                with suppress(StoreError):  # A note that is missing costs a repetition.
                    self.journal.delivered(number, operation.run, self._delivery.ids.get(operation.run))

    def flush(self, patience: float) -> bool:
        """Wait until all is delivered, for ``patience`` seconds at most; returns whether it is."""
        until = time.monotonic() + patience
        with self._lock:
            while self._thread is not None and time.monotonic() < until:
                self._hold, self._hurry = 0.0, True  # No long pauses while somebody waits.
                self._lock.notify_all()
                self._lock.wait(min(0.5, max(0.0, until - time.monotonic())))
            return self._thread is None

    def stop(self) -> None:
        """Deliver no more; what waits stays on the disk for the next driver."""
        with self._lock:
            self._stopped = True
            self._lock.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=30.0)


@dataclass(frozen=True)
class Recovered:
    """What :func:`recover` did: operations delivered, and why runs were given up, by run."""

    delivered: int
    refused: Mapping[str, str]


def leftovers(folder: Path, is_gone: Callable[[str], bool]) -> list[Path]:
    """Journals of drivers that have ended."""
    return [path for path in sorted(folder.glob(f"*{SUFFIX}")) if is_gone(path.stem)]


def recover(path: Path, sink: Sink, guard: Guard = lambda operation, run_id: "") -> Recovered:
    """Deliver what a driver that ended left in its journal, and remove the journal.

    Raises:
        StoreError: the journal cannot be read, or the store does not answer; what is not delivered stays.
    """
    journal = Journal(path)
    delivery = Delivery(sink, guard)
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Recovered(0, {})  # Another driver is at it.
        contents = journal.read()
        delivery.ids.update(contents.ids)
        delivery.next.update(contents.next)
        done = 0
        for number, operation in contents.waiting:
            try:
                whole = Operation(operation.run, operation.index, operation.kind, operation.body, contents.blob(number))
            except StoreError as error:
                delivery.refuse(operation.run, str(error))
                continue
            try:
                delivery.deliver(whole, again=True)
            except Refused as error:
                logger.warning("run %s is given up: %s", operation.run, error)
                continue
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever the store raises
                raise StoreError(f"{path}: cannot be delivered: {first_line(error)}") from None
            done += 1
            journal.delivered(number, operation.run, delivery.ids.get(operation.run))
        journal.remove()
    return Recovered(done, dict(delivery.refused))
