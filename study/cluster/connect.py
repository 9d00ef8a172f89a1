"""Start a Ray cluster on this machine for one run, or join one that is there."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any

from study import environment
from study.cluster.errors import TOKEN_HINT, ClusterError
from study.home import Home
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from study.executors.base import ExecutorSettings

LOCAL = "local"
AUTO = "auto"
_ADDRESS = re.compile(r"^(?P<host>[A-Za-z0-9_.\-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})$")
_PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class Connection:
    """A Ray cluster this process is connected to.

    Attributes:
        address: of its head, ``host:port``.
        nodes: alive ones.
        machines: they are on; several nodes of one address and host name are one machine.
        cpus: of all nodes.
        gpus: of all nodes.
        started: whether it was started here and ends with the connection.
    """

    address: str
    nodes: int
    machines: int
    cpus: float
    gpus: float
    started: bool

    def slots(self, threads: int, gpus_per_trial: float) -> int:
        """Trials that fit at a time, at least one.

        Args:
            threads: CPUs a trial takes.
            gpus_per_trial: share of a GPU a trial takes; 0 for one that trains on the CPU.
        """
        fit = self.cpus // max(threads, 1)
        if gpus_per_trial > 0:
            fit = min(fit, self.gpus // gpus_per_trial)
        return max(1, int(fit))


def check_where(where: str) -> str:
    """``where``, if it is one of ``local``, ``auto`` and ``HOST:PORT``; raises :class:`ConfigError` otherwise."""
    if where in {LOCAL, AUTO}:
        return where
    found = _ADDRESS.match(where)
    if found and 0 < int(found["port"]) < 65536:
        return where
    # Over Ray Client (ray://) Tune falls back to an older driver that runs on the cluster.
    hint = "; for http:// or ray:// use `mtl-study submit`" if "://" in where else ""
    raise ConfigError(f"--cluster {where}: local, auto or HOST:PORT of the head is wanted, like 10.0.0.1:6379{hint}")


def refuse_embedded(store: str, machines: int) -> None:
    """Raise :class:`ConfigError` where records in a SQLite file would be shared by several machines.

    Args:
        store: MLflow's or Optuna's URL.
        machines: of the cluster.
    """
    if machines > 1 and store.startswith("sqlite:"):
        raise ConfigError(
            f"{store}: SQLite over {machines} nodes is refused: its file locks do not hold on shared file systems and "
            "records would be lost; give a PostgreSQL URL with --tracking or MTL_STUDY_TRACKING, or use --cluster local"
        )


@contextmanager
def connect(where: str, home: Home, *, cpus: int, store: str | None = None) -> Iterator[Connection]:
    """Be connected to a Ray cluster.

    Args:
        where: ``local`` starts one on this machine, which ends with the context; ``HOST:PORT`` joins that one, and
            ``auto`` the one ``RAY_ADDRESS`` names or else the one that runs on this machine. A joined cluster is left
            as it is. If this process is connected already, that connection is used and left alone.
            While connected, SIGTERM interrupts as Ctrl-C does.
        home: for the token of a cluster started here.
        cpus: CPUs of a cluster started here.
        store: URL of the records, checked by :func:`refuse_embedded`; ``None`` where nothing is recorded.

    Raises:
        ConfigError: ``where`` is none of these, or the store does not fit the cluster.
        ClusterError: there is no such cluster, or it refuses the token.
    """
    check_where(where)
    environment.quiet()
    import ray

    held = ray.is_initialized()
    with _sigterm_given_back() as interrupted_by_sigterm:
        try:
            if not held and where == LOCAL:
                _start(home, cpus)
            elif not held:
                _join(where)
            connection = _describe(started=where == LOCAL and not held)
            if store is not None:
                refuse_embedded(store, connection.machines)
            interrupted_by_sigterm()
            yield connection
        finally:
            if not held:
                ray.shutdown()


@contextmanager
def joined(where: str, home: Home) -> Iterator[Connection | None]:
    """Be connected to the cluster ``where`` for a run as a whole; ``None`` for ``local``, where a cluster is started
    only once there is something to train. Arguments and errors as of :func:`connect`."""
    if check_where(where) == LOCAL:
        yield None
        return
    with connect(where, home, cpus=0, store=home.tracking_uri) as connection:
        yield connection


def fitted(settings: ExecutorSettings, connection: Connection | None, threads: int, device: str) -> ExecutorSettings:
    """``settings`` with as many workers as fit, where they leave that open: on a joined cluster, or, of trials that
    several processes train, on this machine."""
    if connection is None and settings.processes > 1 and settings.measure_workers:
        import torch

        fit = torch.cuda.device_count() if device == "cuda" else settings.workers // threads
        return replace(settings, workers=max(1, fit // settings.processes), measure_workers=False)
    if connection is None or settings.workers:
        return settings
    share = settings.gpus_per_trial if device == "cuda" else 0.0
    return replace(settings, workers=connection.slots(threads * settings.processes, share))


@contextmanager
def _sigterm_given_back() -> Iterator[Callable[[], None]]:
    """Yields what makes SIGTERM interrupt as Ctrl-C does: a stopped job, an evicted pod and a Slurm job at its limit
    get it, and the run that it ends closes its records. To be called once Ray is up, whose own handler just exits."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    try:
        yield lambda: _set(interrupt)
    finally:
        _set(before)


def _set(handler: Any) -> None:
    signal.signal(signal.SIGTERM, handler if handler is not None else signal.SIG_DFL)


def count_nodes() -> int:
    """Alive nodes of the cluster this process is connected to."""
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes())


def _start(home: Home, cpus: int) -> None:
    import ray

    environment.ray_token(home.path)
    with quiet_output():
        # Said in so many words: without an address, Ray would join the cluster that RAY_ADDRESS names.
        ray.init(
            "local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
        )


def _join(where: str) -> None:
    import ray

    address = where
    if where == AUTO:
        address = os.environ.get("RAY_ADDRESS", AUTO)
        if address != AUTO and not _ADDRESS.match(address):
            raise ConfigError(f"RAY_ADDRESS={address}: HOST:PORT of the head is wanted to join its cluster")
    if address != AUTO:
        # Ray would try for 20 s and say the same of a wrong address and of a wrong token.
        _probe(address)
    try:
        with quiet_output(), _given_address(address):
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)
    except ConnectionError:
        if address == AUTO:
            raise ClusterError(
                "--cluster auto: no Ray cluster runs on this machine and RAY_ADDRESS is not set; give HOST:PORT, or "
                "use --cluster local"
            ) from None
        raise ClusterError(f"--cluster {address}: Ray answers but lets nobody in: {TOKEN_HINT}") from None
    except RuntimeError as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClusterError(f"--cluster {address}: cannot be joined: {first}") from None


@contextmanager
def _given_address(address: str) -> Iterator[None]:
    """Ray lets RAY_ADDRESS override the address it is given; here the one given counts."""
    saved = os.environ.pop("RAY_ADDRESS", None) if address != AUTO else None
    try:
        yield
    finally:
        if saved is not None:
            os.environ["RAY_ADDRESS"] = saved


def _probe(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PROBE_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ClusterError(f"--cluster {address}: nothing answers there: {reason}") from None


def _describe(*, started: bool) -> Connection:
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]

    def total(resource: str) -> float:
        return float(sum(node["Resources"].get(resource, 0.0) for node in alive))

    address = ray.get_runtime_context().gcs_address
    machines = {(node["NodeManagerAddress"], node["NodeManagerHostname"]) for node in alive}
    return Connection(address, len(alive), len(machines), total("CPU"), total("GPU"), started)


@contextmanager
def quiet_output() -> Iterator[None]:
    """Ray and Tune print boxes and hints even when told to be silent; the command line has its own words."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        yield
