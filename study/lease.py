"""Leases: which driver may train and record a trial. Several drivers share a home, and no trial has two of them.

A lease is a row by trial key: owner, fencing token, and when it ends by the store's own clock, so that drivers whose
clocks differ agree. The token grows by one with every change of owner. A driver that lost its lease is told by the
token, and writes nothing of that trial from then on.

A driver that ends without a word is found in two ways: its leases run out; or, on the same running system, the file
it held locked is free, which the kernel sees to however a process ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.faults import first_line
from trainables.errors import StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

SECONDS = 60.0
"""How long a lease holds without being renewed."""
_PLACE = 12
_MARK = ".place"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Lease:
    """A row of the table.

    Attributes:
        key: trial key.
        owner: id of the driver.
        token: fencing token; grows with every change of owner.
        expires: by the store's clock, in seconds.
        live: whether it had not run out, and its owner was not known to be gone, when it was read.
        first: whether nobody, this driver included, had the trial before.
    """

    key: str
    owner: str
    token: int
    expires: float
    live: bool = True
    first: bool = False


class Presence:
    """A driver's file in ``folder``, locked while the driver lives.

    Args:
        folder: shared by the drivers of a home.
        owner: id; made up where none is given. Starts with the ids of the running system and of the folder.
    """

    def __init__(self, folder: Path, owner: str | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        _mark(folder)
        self.owner = owner or f"{boot_id()}-{_place(folder)}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._file = (folder / f"{self.owner}.lock").open("a+")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """The driver is done."""
        (self.folder / f"{self.owner}.lock").unlink(missing_ok=True)
        self._file.close()


def boot_id() -> str:
    """Of the running system, the same in all its containers; another after every start."""
    try:
        return _BOOT.read_text().strip()[:8]
    except OSError:
        return f"{uuid.getnode():x}"[:8]


def _mark(folder: Path) -> None:
    if (folder / _MARK).exists():
        return
    part = folder / f"{_MARK}.{uuid.uuid4().hex}"
    part.write_text(uuid.uuid4().hex)
    with suppress(FileExistsError):  # Another driver was first.
        os.link(part, folder / _MARK)
    part.unlink()


def _place(folder: Path) -> str:
    """Id of a folder: the same for all who see it, another for a copy of it and for another container's."""
    mark = folder / _MARK
    try:
        identity = f"{mark.read_text()}-{mark.stat().st_ino}"
    except OSError:
        identity = str(folder)
    return hashlib.sha256(identity.encode()).hexdigest()[:_PLACE]


def gone(folder: Path, owner: str) -> bool:
    """Whether ``owner`` is known to have ended. Of a driver on another machine, or of another home with the same
    database, nothing is known."""
    boot, _, rest = owner.partition("-")
    place = rest.partition("-")[0]
    # A process's id there: of a version whose owners do not name their folder, which had no other.
    if boot != boot_id() or (len(place) == _PLACE and place != _place(folder)):
        return False
    try:
        with (folder / f"{owner}.lock").open("r+") as file:
            # Shared: another driver that asks at the same moment is not the owner.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class Leases:
    """The leases of one driver.

    Args:
        url: SQLAlchemy URL of the database; the table is made where it is missing.
        presence: the driver's.
        seconds: how long a lease holds without being renewed.
        clock: the time in seconds; the store's own by default.
        local: seconds on this side, from wherever.
    """

    def __init__(
        self,
        url: str,
        presence: Presence,
        *,
        seconds: float = SECONDS,
        clock: Callable[[], float] | None = None,
        local: Callable[[], float] = time.monotonic,
    ) -> None:
        self.presence = presence
        self.owner = presence.owner
        self.seconds = seconds
        self._folder = presence.folder
        self._url = url
        self._clock = clock
        self._local = local
        self._held: dict[str, int] = {}
        self._sure: dict[str, float] = {}
        self._first: set[str] = set()
        self._made = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ---- the protocol ----------------------------------------------------------------------------

    def acquire(self, key: str) -> Lease | None:
        """Take the lease of a trial, or ``None`` while a live driver has it. Taking one's own again renews it."""
        asked = self._local()
        with self._transaction() as (connection, now):
            found = self._read(connection, key, now)
            if found is not None and found.owner != self.owner and found.live:
                return None
            same = found is not None and found.owner == self.owner
            token = found.token + (not same) if found else 1
            row = {"owner": self.owner, "token": token, "expires": now + self.seconds}
            if found is None:
                connection.execute(self._table.insert().values(trial_key=key, **row))
            else:
                connection.execute(self._table.update().where(self._table.c.trial_key == key).values(**row))
        with self._lock:
            self._held[key] = token
            self._sure[key] = asked + self.seconds
            self._first.discard(key)
            if found is None:
                self._first.add(key)
        return Lease(key, self.owner, token, now + self.seconds, first=found is None)

    def renew(self) -> set[str]:
        """Hold on to every lease; returns the keys of those another driver has taken meanwhile, which are given up.

        A lease that ran out and was taken by nobody is renewed, too: its token still stands.
        """
        with self._lock:
            held = dict(self._held)
        if not held:
            return set()
        asked = self._local()
        kept = set()
        with self._transaction() as (connection, now):
            for key, token in held.items():
                c = self._table.c
                ours = (c.trial_key == key) & (c.owner == self.owner) & (c.token == token)
                done = connection.execute(self._table.update().where(ours).values(expires=now + self.seconds))
                if done.rowcount:
                    kept.add(key)
        lost = set(held) - kept
        with self._lock:
            for key in kept & set(self._held):
                self._sure[key] = asked + self.seconds
            self._first -= lost
            for key in lost:
                self._held.pop(key, None)
                self._sure.pop(key, None)
        return lost

    def release(self, key: str) -> None:
        """Give a lease back; nothing where it is lost already. The row stays, expired, so that tokens go on growing.

        Raises:
            StoreError: the store does not answer; the lease is held as before.
        """
        with self._lock:
            # Before the row is written, so that the heartbeat does not renew it after.
            token, sure = self._held.pop(key, None), self._sure.pop(key, 0.0)
        if token is None:
            return
        c = self._table.c
        ours = (c.trial_key == key) & (c.owner == self.owner) & (c.token == token)
        try:
            with self._transaction() as (connection, _):
                connection.execute(self._table.update().where(ours).values(expires=0.0))
        except StoreError:
            with self._lock:
                self._held[key], self._sure[key] = token, sure
            raise
        with self._lock:
            self._first.discard(key)

    def owns(self, key: str) -> bool:
        """Whether this driver may write of the trial. Asks the store where the lease has not been confirmed lately.

        Raises:
            StoreError: the store has to be asked and does not answer.
        """
        with self._lock:
            if key not in self._held:
                return False
            # Half of the time is the margin for a write that takes long.
            sure = self._sure[key] - self._local() > self.seconds / 2
        return sure or (key not in self.renew() and key in self._held)

    def held_throughout(self, key: str) -> bool:
        """Whether the lease, as it was last confirmed, has not run out yet: nobody else can have had the trial since.
        Does not ask the store."""
        with self._lock:
            return key in self._held and self._sure[key] > self._local()

    def first(self, key: str) -> bool:
        """Whether this driver has had the trial since its first lease of all, so that no other can have finished
        it."""
        with self._lock:
            return key in self._first

    # ---- looking ---------------------------------------------------------------------------------

    def all(self) -> list[Lease]:
        """Every lease that was not given back, by key."""
        with self._transaction() as (connection, now):
            rows = connection.execute(self._table.select().where(self._table.c.expires > 0.0)).fetchall()
            found = [self._lease(row, now) for row in rows]
        return sorted(found, key=lambda lease: lease.key)

    def live(self) -> set[str]:
        """Keys that a live driver, this one or another, is training."""
        return {lease.key for lease in self.all() if lease.live}

    def drop_stale(self) -> int:
        """Mark the leases of drivers that are gone as given back; returns how many."""
        stale = [lease for lease in self.all() if not lease.live]
        with self._transaction() as (connection, _):
            for lease in stale:
                c = self._table.c
                same = (c.trial_key == lease.key) & (c.token == lease.token) & (c.expires == lease.expires)
                connection.execute(self._table.update().where(same).values(expires=0.0))
        return len(stale)

    # ---- heartbeat -------------------------------------------------------------------------------

    def start(self, on_lost: Callable[[Iterable[str]], None] | None = None) -> None:
        """Renew in a thread, three times in the length of a lease, until :meth:`stop`; ``on_lost`` is told there of
        leases that others took."""
        self._thread = threading.Thread(target=self._beat, args=(on_lost,), name="leases", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give back what is held, and the driver's presence."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            for key in list(self._held):
                self.release(key)
        except StoreError:
            self._held.clear()  # They run out by themselves.
        self._engine.dispose()
        self.presence.close()

    def _beat(self, on_lost: Callable[[Iterable[str]], None] | None) -> None:
        while not self._stop.wait(self.seconds / 3):
            try:
                lost = self.renew()
            except StoreError:
                continue  # Nobody can take them while the store is away.
            if lost and on_lost is not None:
                on_lost(lost)

    # ---- the table -------------------------------------------------------------------------------

    @cached_property
    def _engine(self) -> Engine:
        from sqlalchemy import create_engine, event

        if not self._url.startswith("sqlite"):
            return create_engine(self._url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
        engine = create_engine(self._url, connect_args={"timeout": 20, "check_same_thread": False})

        # The driver's own transactions begin with the first write; two that read first could then both take a lease.
        @event.listens_for(engine, "connect")
        def manual(connection: Any, record: Any) -> None:
            connection.isolation_level = None
            # Every trial makes two transactions here. What a power cut takes of them, no driver is left to miss; in
            # this mode it takes the last of them and leaves the file whole.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

        @event.listens_for(engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        return engine

    @cached_property
    def _table(self) -> Table:
        from sqlalchemy import BigInteger, Column, Double, MetaData, String, Table

        return Table(
            "mtl_study_leases",
            MetaData(),
            Column("trial_key", String(64), primary_key=True),
            Column("owner", String(64), nullable=False),
            Column("token", BigInteger, nullable=False),
            Column("expires", Double, nullable=False),
        )

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Connection, float]]:
        """A transaction that no other driver's runs beside, and the time."""
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    # Of the transaction; creating a table twice at once fails there even with IF NOT EXISTS.
                    connection.execute(text("SELECT pg_advisory_xact_lock(7310868735401227)"))
                if not self._made:
                    self._table.create(connection, checkfirst=True)
                yield connection, self._now(connection)
            self._made = True
        except SQLAlchemyError as error:
            where = self._engine.url.render_as_string(hide_password=True)
            raise StoreError(f"leases at {where}: {first_line(error)}") from None

    def _now(self, connection: Connection) -> float:
        if self._clock is not None:
            return self._clock()
        # SQLite's clock is this machine's: machines that share a file need clocks that agree to some seconds.
        question = "(julianday('now') - 2440587.5) * 86400.0"
        if connection.dialect.name == "postgresql":
            question = "extract(epoch FROM clock_timestamp())"
        return float(connection.exec_driver_sql(f"SELECT {question}").scalar_one())

    def _read(self, connection: Connection, key: str, now: float) -> Lease | None:
        row = connection.execute(self._table.select().where(self._table.c.trial_key == key)).one_or_none()
        return None if row is None else self._lease(row, now)

    def _lease(self, row: Any, now: float) -> Lease:
        live = row.expires > now and (row.owner == self.owner or not gone(self._folder, row.owner))
        return Lease(row.trial_key, row.owner, int(row.token), float(row.expires), live)
