"""The processes beside a trial's first one: each trains its share of every batch, in step with the first."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import psutil
from torch import distributed as dist

from trainables.config import TrialConfig, load_trial
from trainables.errors import CheckpointError, Diverged, UserError
from trainables.together import PATIENCE, Together, join, part
from trainables.trainer import Trainer

logger = logging.getLogger(__name__)


LOOPBACK = "127.0.0.1"


class Shared(Protocol):
    """A trial that several processes train, as :class:`trainables.session.TrialTask` has it: plain data, so that it
    crosses process and machine borders."""

    @property
    def key(self) -> str:
        """Trial key."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved trial config, as plain data."""
        ...

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        ...

    @property
    def cores(self) -> int | None:
        """Of its machine, one process's share; ``None`` for all."""
        ...

    @property
    def processes(self) -> int:
        """That train it together."""
        ...

    def data(self, config: TrialConfig) -> Path:
        """The folder to open the data set in, on this machine."""
        ...


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a trial meet.

    Attributes:
        file: on one machine, a file that is not there yet.
        host: else, the first one's address.
        port: and its port.
        patience: seconds that one waits for the others.
    """

    file: str = ""
    host: str = LOOPBACK
    port: int = 0
    patience: float = PATIENCE

    def join(self, trial: Shared, rank: int, store: dist.Store | None = None, own: str = LOOPBACK) -> Together:
        """Meet the others.

        Args:
            trial: that is trained together.
            rank: of this process.
            store: where this process keeps it.
            own: this machine's address, as the others see it.
        """
        # gloo listens on the address that the machine's name resolves to, which may be one that nobody else sees.
        if (name := interface_of(own)) is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        if store is None:
            store = dist.FileStore(self.file, trial.processes) if self.file else dist.TCPStore(self.host, self.port)
        return join(store, rank, trial.processes, trial.device, self.patience)


def interface_of(address: str) -> str | None:
    """This machine's network interface with that address; ``None`` where none has it."""
    found = psutil.net_if_addrs().items()
    return next((name for name, addresses in found if address in {one.address for one in addresses}), None)


def parts_of(trial: Shared) -> tuple[TrialConfig, Path, str, int | None]:
    """What a trainer of the trial is made of on this machine; raises ``UserError`` where config or data are not right
    here."""
    config = load_trial(trial.config)
    return config, trial.data(config), trial.device, trial.cores


class Peer:
    """One of the processes after the first.

    Args:
        rank: its place among them, from 1.
        address: of its machine, as the others see it.
    """

    _trainer: Trainer

    def __init__(self, rank: int, address: str = LOOPBACK) -> None:
        self._rank = rank
        self._address = address

    def follow(self, name: str, *arguments: Any) -> None:
        """Do what the first process does at the same time: ``ready``, ``meet``, ``advance``, ``save`` or ``load``.

        Raises:
            UserError: config, data or code are not those of the first process.
            Exception: whatever the trial raises. The others are left then, so that they do not wait.
        """
        deeds: dict[str, Callable[..., None]] = {
            "ready": lambda: None,
            "meet": self._meet,
            "advance": self._advance,
            "save": self._save,
            "load": self._load,
        }
        try:
            deeds[name](*arguments)
        except BaseException:
            part()
            raise

    def _meet(self, trial: Shared, meeting: Meeting) -> None:
        parts = parts_of(trial)
        self._trainer = Trainer(*parts, together=meeting.join(trial, self._rank, own=self._address))
        if self._trainer.key != trial.key:
            raise CheckpointError(
                f"process {self._rank + 1} of {trial.processes} computes the key {self._trainer.key[:12]} for trial "
                f"{trial.key[:12]}: it runs different code or sees different pretrained weights"
            )

    def _advance(self, iterations: int | None, to_evaluation: bool) -> None:
        try:
            self._trainer.advance(iterations, to_evaluation=to_evaluation)
        except Diverged:
            return  # The first process says so.

    def _save(self) -> None:
        self._trainer.state_dict()

    def _load(self) -> None:
        self._trainer.load_state_dict(self._trainer.together.decided({}))


# ---- as a child process ------------------------------------------------------------------------------


def serve(connection: Connection, rank: int) -> None:
    """Do what is asked over ``connection``, until it is closed: then this process ends, whatever it is doing."""
    # Ctrl-C reaches the whole process group; who started this process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                asked.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    peer = Peer(rank)
    while True:
        deed = asked.get()
        answer: Exception | None = None
        try:
            peer.follow(*deed)
        except UserError as error:
            answer = error
        except Exception as error:
            logger.exception("process %d of the trial", rank + 1)
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        connection.send(answer)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
