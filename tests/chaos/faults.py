"""Faults, and the points of the code at which they strike.

A driver or worker that is to fail replaces one function of its own by one that fails at the n-th call. Each fault
strikes once in a round, however many processes come by its point: which of them have struck stands in a folder.
"""

from __future__ import annotations

import errno
import functools
import importlib
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.executors.local import _serve as SERVE

from . import servers

DRIVER, WORKER = "driver", "worker"
LOCK = (
    "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None);"
    "c.execute('BEGIN EXCLUSIVE'); print(flush=True); time.sleep(float(sys.argv[2]))"
)
CLIENT_CALLS = (
    *("create_run", "log_batch", "set_tag", "set_terminated", "log_artifact", "set_experiment_tag"),
    *("search_runs", "get_metric_history", "update_run"),
)
FILLER = ".filler"


@dataclass(frozen=True)
class Fault:
    """What strikes, and when.

    Attributes:
        point: a name of :data:`POINTS`.
        act: one of its acts.
        call: at which call of it, from 1.
        seconds: how long it lasts, where it does.
    """

    point: str
    act: str
    call: int
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.act} at {self.point} {self.call}" + (f" for {self.seconds:.0f} s" if self.seconds else "")


@dataclass(frozen=True)
class Where:
    """A point: the process, the function, how many calls of it a sweep makes, what can be done to it."""

    process: str
    function: str
    calls: int
    acts: tuple[str, ...]


DEATHS = ("kill", "kill after")
POINTS: dict[str, Where] = {
    "a report": Where(DRIVER, "study.tracking:Tracker.log", 14, ("kill", "kill after", "kill worker")),
    "a run's creation": Where(DRIVER, "study.sink:MlflowSink.create", 3, DEATHS),
    "a write of records": Where(DRIVER, "study.sink:MlflowSink.apply", 30, DEATHS),
    "a transaction": Where(DRIVER, "sqlalchemy.orm.session:Session.commit", 80, DEATHS),
    "a lease": Where(DRIVER, "study.lease:Leases.acquire", 3, DEATHS),
    "a lease given back": Where(DRIVER, "study.lease:Leases.release", 3, DEATHS),
    "a checkpoint's removal": Where(DRIVER, "trainables.checkpoint:remove", 3, DEATHS),
    "the data set's build": Where(DRIVER, "trainables.data.store:_ArrayWriter.append", 60, ("kill", "full")),
    "the data set's files": Where(DRIVER, "trainables.data.store:_ArrayWriter.finish", 10, DEATHS),
    "a step": Where(WORKER, "trainables.history:History.add", 14, ("kill", "raise", "memory")),
    "an evaluation": Where(WORKER, "trainables.trainer:Trainer.evaluate", 6, ("kill", "raise")),
    "a checkpoint": Where(WORKER, "trainables.checkpoint:save", 12, ("kill", "kill after", "full")),
    "a checkpoint's bytes": Where(WORKER, "os:fsync", 12, ("kill", "tear", "full")),
    "a checkpoint's second name": Where(WORKER, "os:link", 10, DEATHS),
    "a checkpoint's move": Where(WORKER, "os:replace", 20, DEATHS),
    "a checkpoint's check": Where(WORKER, "trainables.checkpoint:check", 12, ("kill", "raise")),
}
STORE = {
    "the store": Where(DRIVER, "study.tracking:Tracker.log", 14, ("lock", "lock leases", "refuse")),
    "the spool": Where(DRIVER, "study.journal:Journal._write", 12, ("kill", "kill after", "full")),
}
DISK = {"the disk": Where(DRIVER, "study.tracking:Tracker.log", 14, ("fill", "limit"))}
PAIR = {"a driver": Where(DRIVER, "study.tracking:Tracker.log", 12, ("stall", "kill"))}
SEARCH = {
    "the search's storage, a trial": Where(DRIVER, "optuna.storages:RDBStorage._create_new_trial", 6, DEATHS),
    "the search's storage, a value": Where(DRIVER, "optuna.storages:RDBStorage.set_trial_state_values", 6, DEATHS),
    "the search's storage, a note": Where(DRIVER, "optuna.storages:RDBStorage.set_trial_user_attr", 30, DEATHS),
    "the search's storage": Where(DRIVER, "study.tracking:Tracker.log", 12, ("lock search",)),
}
_SERVER = ("kill server", "kill server during", "kill server and this", "stall server")
SERVER = {
    "the server": Where(DRIVER, "study.sink:MlflowSink.apply", 45, _SERVER),
    "the server, a run's creation": Where(DRIVER, "study.sink:MlflowSink.create", 4, _SERVER),
    "the server, a report": Where(DRIVER, "study.tracking:Tracker.log", 14, _SERVER),
}
LEASES = {
    "the server, a lease": Where(DRIVER, "study.lease:Leases.acquire", 4, _SERVER),
    "the server, a lease given back": Where(DRIVER, "study.lease:Leases.release", 4, _SERVER),
    "the server, a transaction": Where(DRIVER, "sqlalchemy.orm.session:Session.commit", 80, _SERVER),
}
SEARCHED = {
    "the server, a trial of the search": Where(DRIVER, "optuna.storages:RDBStorage._create_new_trial", 6, _SERVER),
    "the server, a value of the search": Where(DRIVER, "optuna.storages:RDBStorage.set_trial_state_values", 6, _SERVER),
    "the server, a note of the search": Where(DRIVER, "optuna.storages:RDBStorage.set_trial_user_attr", 30, _SERVER),
}
CLUSTER = {
    "the cluster": Where(DRIVER, "study.tracking:Tracker.log", 12, ("kill worker", "kill raylet", "kill gcs", "kill")),
}
ALL = {**POINTS, **STORE, **DISK, **PAIR, **SEARCH, **CLUSTER, **SERVER, **LEASES, **SEARCHED}
LASTS = {"lock": 7.0, "lock leases": 3.0, "lock search": 7.0, "refuse": 4.0, "stall": 5.0, "stall server": 8.0}
STORES = ("lock", "lock leases", "lock search", "refuse", "stall server")
"""Acts that keep a store away for a while."""
_DURING_SECONDS = 0.004


def draw(chance: random.Random, points: dict[str, Where]) -> Fault:
    """Any fault at any call of any of the points."""
    name = chance.choice(sorted(points))
    act = chance.choice(points[name].acts)
    return Fault(name, act, chance.randint(1, points[name].calls), LASTS.get(act, 0.0))


class Injector:
    """Strikes in this process.

    Args:
        faults: of this process and its workers.
        struck: file that lists those that have struck.
        home: of the sweep.
        tracking: URL of its records, where they are elsewhere.
    """

    def __init__(self, faults: Sequence[Fault], struck: Path, home: Path, tracking: str | None = None) -> None:
        self.faults, self.struck, self.home, self.tracking = tuple(faults), struck, home, tracking
        self._until = 0.0

    def install(self, process: str) -> None:
        """Replace what is to fail in a process of that kind."""
        if process == DRIVER and any(fault.act == "refuse" for fault in self.faults):
            self._refuse()
        for fault in self.faults:
            where = ALL[fault.point]
            if where.process == process:
                self._replace(fault, where.function)

    def _replace(self, fault: Fault, function: str) -> None:
        module, _, path = function.partition(":")
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        original = vars(owner)[name]
        static = isinstance(original, staticmethod)
        inner: Callable[..., Any] = original.__func__ if static else original
        calls = itertools.count(1)

        @functools.wraps(inner)
        def failing(*args: Any, **options: Any) -> Any:
            if next(calls) < fault.call or not self._claim(fault):
                return inner(*args, **options)
            if fault.act == "kill after":
                inner(*args, **options)
            self._act(fault, args)
            return inner(*args, **options)

        setattr(owner, name, staticmethod(failing) if static else failing)

    def _claim(self, fault: Fault) -> bool:
        """Whether it strikes now; only the first who asks strikes."""
        try:
            (self.struck / str(fault).replace(" ", "_")).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _act(self, fault: Fault, args: tuple[Any, ...]) -> None:
        act = fault.act
        if act in DEATHS:
            os.kill(os.getpid(), signal.SIGKILL)
        elif act == "tear":
            os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        elif act == "raise":
            raise RuntimeError("injected")
        elif act == "memory":
            raise MemoryError("injected")
        elif act == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif act.startswith("lock"):
            names = {"lock": "mlflow.db", "lock leases": "leases.db", "lock search": "optuna.db"}
            command = [sys.executable, "-c", LOCK, str(self.home / names[act]), str(fault.seconds)]
            holder = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert holder.stdout is not None
            holder.stdout.readline()
        elif act == "refuse":
            self._until = time.monotonic() + fault.seconds
        elif act == "fill":
            with (self.home / FILLER).open("wb") as file:
                for size in (1 << 16, 1):
                    while _written(file.fileno(), size):
                        pass
        elif act == "limit":
            size = (self.home / "mlflow.db").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        elif act == "stall":
            command = [sys.executable, "-c", "import os, signal, sys, time; time.sleep(float(sys.argv[2]));"]
            command[-1] += "os.kill(int(sys.argv[1]), signal.SIGCONT)"
            subprocess.Popen([*command, str(os.getpid()), str(fault.seconds)], start_new_session=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        elif act == "stall server":
            servers.stall(self.home.parent, fault.seconds)
        elif act == "kill server during":
            threading.Timer(_DURING_SECONDS * fault.call, servers.kill, (self.home.parent,)).start()
        elif act.startswith("kill server"):
            servers.kill(self.home.parent)
            if act == "kill server and this":
                os.kill(os.getpid(), signal.SIGKILL)
        else:
            self._kill(act.removeprefix("kill "), args)

    def _kill(self, what: str, args: tuple[Any, ...]) -> None:
        import psutil

        if what == "worker":
            victims = [int(args[2].worker["pid"])]
        else:
            names = {"raylet": "raylet", "gcs": "gcs_server"}
            children = psutil.Process().children(recursive=True)
            victims = [child.pid for child in children if child.name() == names[what]]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)

    def _refuse(self) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

        def refusing(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                if time.monotonic() < self._until:
                    raise MlflowException("injected", error_code=TEMPORARILY_UNAVAILABLE)
                return original(*args, **options)

            return call

        for name in CLIENT_CALLS:
            setattr(MlflowClient, name, refusing(getattr(MlflowClient, name)))


def _written(descriptor: int, size: int) -> bool:
    try:
        return os.write(descriptor, b"\0" * size) == size
    except OSError:
        return False


def serve(injector: Injector, log: Path, *args: Any) -> None:
    """A local worker with its faults."""
    redirect(log)
    injector.install(WORKER)
    SERVE(*args)


def redirect(log: Path) -> None:
    """What this process says goes to a file."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def free_later(home: Path, seconds: float) -> threading.Timer:
    """Give the disk back after a while."""
    timer = threading.Timer(seconds, lambda: (home / FILLER).unlink(missing_ok=True))
    timer.start()
    return timer
