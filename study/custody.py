"""Who writes what: a driver's leases and its spool, and what it takes over from drivers that have ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from study import schema
from study.home import Home
from study.journal import END, SUFFIX, Operation
from study.lease import SECONDS, Leases, Presence, gone
from study.sink import MlflowSink
from study.spool import Spool, leftovers, recover
from trainables.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_PATIENCE = 600.0
"""Seconds that the end of a run waits for a store that is away."""
TAKEN = "another driver took the trial over"
TWICE = "another run of the trial was finished first"

IsFinished = Callable[[str, str], bool]
"""Of a trial key and the id of a run: whether there is a whole run of the trial beside that one."""


class Claim(Enum):
    """What came of asking for a trial."""

    OURS = "ours"
    BUSY = "busy"
    """A live driver trains it."""
    FINISHED = "finished"
    """It was finished meanwhile."""


class Custody:
    """A driver's hold on trials and on their records.

    Args:
        home: whose.
        client: of the records.
        experiment: id of the experiment that runs are created in.
        is_finished: whether the records have a whole run of a trial, other than a given one.
        seconds: length of a lease.
    """

    def __init__(
        self, home: Home, client: MlflowClient, experiment: str, is_finished: IsFinished, seconds: float = SECONDS
    ) -> None:
        self._home = home
        self._is_finished = is_finished
        self._sink = MlflowSink(client, experiment)
        presence = Presence(home.drivers)
        self.leases = Leases(home.leases_url, presence, seconds=seconds)
        self._unleased: set[str] = set()
        self._done: set[str] = set()
        self._lost: set[str] = set()
        self._lock = threading.Lock()
        self.spool = Spool(home.spool, presence.owner, self._sink, self._guard, self._confirm)
        self.leases.start(self._on_lost)

    # ---- trials ----------------------------------------------------------------------------------

    def claim(self, key: str) -> Claim:
        """Ask for a trial. While the store is away it is given, and whether it counts is asked when it is back.

        Whether it is finished is asked of the records only where another driver has had it, since that question takes
        longer the more runs there are; what was recorded before this driver began is for the caller to leave out.
        """
        self._done.discard(key)
        try:
            lease = self.leases.acquire(key)
            if lease is None:
                return Claim.BUSY
            if not lease.first and self._finished(key):
                self.leases.release(key)
                return Claim.FINISHED
        except StoreError as error:
            logger.warning("no lease for trial %s yet: %s", key[:12], error)
            self._unleased.add(key)
        with self._lock:
            self._lost.discard(key)
        return Claim.OURS

    def finished_or_free(self, keys: Iterable[str]) -> tuple[set[str], set[str]]:
        """Of trials that others had: those finished by now, and those nobody has any more."""
        try:
            live = self.leases.live()
        except StoreError as error:
            logger.warning("the leases cannot be read: %s", error)
            return set(), set()
        free = set(keys) - live
        done = {key for key in free if self._finished(key)}
        return done, free - done

    def let_go(self, key: str) -> None:
        """The trial is over here. While records wait for the store it stays ours, for nobody else to train it."""
        self._done.add(key)
        if self.spool.waiting:
            return
        try:
            for over in list(self._done):
                self.leases.release(over)
                self._done.discard(over)
                self._unleased.discard(over)
        except StoreError as error:
            logger.warning("the lease of trial %s is given back later: %s", key[:12], error)

    def lost(self, key: str) -> bool:
        """Whether another driver took a trial of ours."""
        with self._lock:
            return key in self._lost

    def _on_lost(self, keys: Iterable[str]) -> None:
        with self._lock:
            self._lost.update(keys)

    def _finished(self, key: str, beside: str = "") -> bool:
        try:
            return self._is_finished(key, beside)
        except Exception as error:
            if self._sink.temporary(error):
                raise StoreError(f"the records cannot be read: {error}") from None
            raise

    def _guard(self, operation: Operation, run_id: str) -> str:
        key = operation.body.get("key")
        if key is None:
            return ""  # A study's own run.
        if not self.leases.owns(key) and not (key in self._unleased and self.leases.acquire(key)):
            return TAKEN
        self._unleased.discard(key)
        if operation.kind != END or self.leases.first(key):
            return ""
        return TWICE if self._finished(key, run_id) else ""

    def _confirm(self, operation: Operation, run_id: str) -> str:
        """A driver that stood still between the guard's answer and the mark, for longer than its lease, may have marked
        a second run: it takes its own back. The other one, whose lease held, does not ask."""
        key = str(operation.body["key"])
        return "" if self.leases.held_throughout(key) or not self._finished(key, run_id) else TWICE

    # ---- what others left ------------------------------------------------------------------------

    def take_over(self) -> int:
        """Deliver what drivers that have ended left in their spools; returns how many operations.

        Raises:
            StoreError: the store does not answer, or a journal cannot be read.
        """
        done = 0
        for path in leftovers(self._home.spool, lambda owner: gone(self._home.drivers, owner)):
            done += recover(path, self._sink, self._guard_leftover).delivered
        # Drivers come one by one (`Tracker`), so that no file here is of one that is about to lock it.
        for file in self._home.drivers.glob("*.lock"):
            if gone(self._home.drivers, file.stem) and not (self._home.spool / f"{file.stem}{SUFFIX}").exists():
                file.unlink(missing_ok=True)
        try:
            # Of trials that are to be trained they would be taken anyway; of finished ones nobody asks.
            self.leases.drop_stale()
        except StoreError as error:
            logger.warning("the leases of drivers that ended stay for now: %s", error)
        return done

    def _guard_leftover(self, operation: Operation, run_id: str) -> str:
        key = operation.body.get("key")
        return TWICE if key is not None and operation.kind == END and self._finished(key, run_id) else ""

    def end(self, run_id: str, status: str, mlflow_status: str, reason: str) -> None:
        """Close a run that no driver has, past the spool."""
        tags = {schema.STATUS: status, **({schema.STATUS_REASON: reason} if reason else {})}
        self._sink.apply(run_id, END, {"status": mlflow_status, "tags": tags}, None)

    # ---- records ---------------------------------------------------------------------------------

    def temporary(self, error: Exception) -> bool:
        """Whether an error of the store says that it is away."""
        return self._sink.temporary(error)

    def adopt(self, run: str, run_id: str) -> None:
        """Write a run that the store has already under a name of this side."""
        self.spool.adopt(run, run_id)

    def write(self, run: str, kind: str, body: Mapping[str, Any], blob: bytes | None = None) -> None:
        """See :meth:`study.spool.Spool.write`."""
        self.spool.write(run, kind, body, blob)

    def close(self, patience: float = _PATIENCE) -> None:
        """Wait for the last records to be delivered and give everything back.

        Raises:
            StoreError: the store is still away; the next run delivers what waits.
        """
        try:
            if self.spool.waiting:
                logger.warning("waiting for the store (%s), %.0f s at most", self.spool.away or "slow", patience)
            delivered = self.spool.flush(patience)
        finally:
            self.spool.stop()
            self.leases.stop()
        if not delivered:
            raise StoreError(
                f"the store is away ({self.spool.away}): {self.spool.waiting} changes to the records wait in "
                f"{self.spool.journal.path}; the next run delivers them"
            )
