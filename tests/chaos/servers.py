"""Stores that are processes of their own: an MLflow server, a PostgreSQL; killed, they are started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import psutil

from study.ui import free_port
from tests.study.postgres_server import Postgres, binaries

DOWN_SECONDS = 3.0
"""Between a server's end and its next start."""
_PID = "server.pid"
_START_SECONDS = 200.0


@dataclass(frozen=True)
class Records:
    """Where the records of a home are.

    Attributes:
        tracking: URL for :class:`study.home.Home`; ``None`` for the home itself.
        database: SQLAlchemy's, of the tables.
        artifacts: folder that ``mlflow-artifacts:/`` stands for.
        ready: waits until they can be read and written.
    """

    tracking: str | None
    database: str
    artifacts: Path
    ready: Callable[[], None] = lambda: None

    @classmethod
    def embedded(cls, home: Path) -> Records:
        """Those of a home on its own."""
        return cls(None, f"sqlite:///{home / 'mlflow.db'}", home)


class Server(Protocol):
    """A server that can be started again."""

    records: Records

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, and return once it answers."""
        ...


class MlflowServer:
    """``mlflow server`` on loopback, with a SQLite file of its own.

    Args:
        base: an empty folder for it.
    """

    def __init__(self, base: Path) -> None:
        # Apart from those of other rounds at the same time, which would take it while this server is down.
        port = free_port(20_000 + os.getpid() % 10_000)
        self.url, self._log = f"http://127.0.0.1:{port}", base / "log"
        database = f"sqlite:///{base / 'mlflow.db'}"
        self.records = Records(self.url, database, base / "artifacts")
        self._command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        self._command += ["--workers", "1", "--backend-store-uri", database]
        self._command += ["--artifacts-destination", str(base / "artifacts")]

    def start(self) -> subprocess.Popen[bytes]:
        """See :class:`Server`."""
        # The jobs that a server would run beside are further processes of half a gigabyte.
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with self._log.open("ab") as log:
            process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.2)
            else:
                return process


class PostgresServer:
    """A PostgreSQL with a database for the records.

    Args:
        base: an empty folder for it.

    Raises:
        FileNotFoundError: it is not installed.
    """

    def __init__(self, base: Path) -> None:
        self._server = Postgres(base)
        url = f"{self._server.url.replace('postgresql:', 'postgresql+psycopg:')}/postgres"
        self.records = Records(url, url, base)

    def start(self) -> subprocess.Popen[bytes]:
        """See :class:`Server`."""
        return self._server.start()


def installed() -> bool:
    """Whether there is a PostgreSQL."""
    return binaries() is not None


@contextmanager
def kept_up(server: Server, place: Path, down: float = DOWN_SECONDS) -> Iterator[Records]:
    """Start a server, and again ``down`` seconds after it ends; its process's id is in ``place``."""
    done, process = threading.Event(), _started(server, place)

    def keep() -> None:
        nonlocal process
        while not done.wait(0.1):
            if process.poll() is not None and not done.wait(down):
                process = _started(server, place)

    def ready() -> None:
        while process.poll() is not None:
            time.sleep(0.1)

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield replace(server.records, ready=ready)
    finally:
        done.set()
        keeper.join()
        # A server that may end by itself takes its shared memory with it.
        left = _processes(place)
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20.0)
        _each(left, signal.SIGKILL)
        process.wait()


def _started(server: Server, place: Path) -> subprocess.Popen[bytes]:
    process = server.start()
    (place / _PID).write_text(str(process.pid))
    return process


def _processes(place: Path) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(int((place / _PID).read_text()))
        return [root, *root.children(recursive=True)]
    return []


def kill(place: Path) -> None:
    """Kill the server, its children with it."""
    _each(_processes(place), signal.SIGKILL)


def stall(place: Path, seconds: float) -> None:
    """Stop the server's processes; they go on after ``seconds``."""
    stopped = _processes(place)
    _each(stopped, signal.SIGSTOP)
    threading.Timer(seconds, _each, (stopped, signal.SIGCONT)).start()


def _each(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
