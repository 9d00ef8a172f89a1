"""A trial's first process and those that train it along: starting them, leading them, and noticing that one is gone.

Ray Train's own groups of workers are no use here. Its trainer is a driver of its own, with its own checkpoints, reports
and retries, and handing one to Tune is deprecated (2.60); under it a trial would not be one actor that is reused, told
to stop at an evaluation, or taken up by another number of processes. What is left of it is a few actors in the
trial's placement group and a process group between them, and that is what there is here.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import distributed as dist

from trainables.errors import ConfigError, Diverged, UserError
from trainables.peer import Meeting, Shared, parts_of
from trainables.together import part, parted
from trainables.trainer import Trainer

logger = logging.getLogger(__name__)

GRACE = 30.0
"""Seconds that the first process has to notice by itself that another one is gone."""
_POLL = 0.5
_SOON = 0.002


class PeerLost(RuntimeError):  # noqa: N818 - an outcome, like Diverged
    """One of the processes that train a trial is gone. The trial goes on from its checkpoint in another attempt."""


class Peers(Protocol):
    """The processes after the first, wherever they are."""

    def open(self) -> tuple[Meeting, dist.Store | None]:
        """Where all meet; the store, where this process keeps it."""
        ...

    def ask(self, *deed: Any) -> None:
        """Have all of them :meth:`trainables.peer.Peer.follow`."""
        ...

    def answered(self) -> bool:
        """Whether all are through with it.

        Raises:
            UserError: as one of them has it.
            PeerLost: one is gone, or raised anything else.
        """
        ...

    def close(self) -> None:
        """End them."""
        ...


Launch = Callable[[Shared], Peers]


class ChildPeers:
    """Peers as child processes on this machine. They end when this process does.

    Not by ``multiprocessing``: a worker of the local executor is daemonic, and may have no children by it.

    Args:
        trial: what is trained.

    Raises:
        ConfigError: there are fewer GPUs here than processes.
    """

    def __init__(self, trial: Shared) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mtl-meeting-")
        self._children: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        self._waiting: set[int] = set()
        gpus = visible_gpus() if trial.device == "cuda" else []
        if trial.device == "cuda" and len(gpus) < trial.processes:
            raise ConfigError(f"resources.gpus: {trial.processes} are wanted for a trial, this machine has {len(gpus)}")
        for rank in range(1, trial.processes):
            ours, theirs = Pipe()
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
            if gpus:
                environment["CUDA_VISIBLE_DEVICES"] = gpus[rank]
            self._children.append(
                subprocess.Popen(
                    [sys.executable, "-m", "trainables.peer", str(theirs.fileno()), str(rank)],
                    pass_fds=[theirs.fileno()],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                )
            )
            theirs.close()
            self._connections.append(ours)

    def open(self) -> tuple[Meeting, dist.Store | None]:
        """A file."""
        return Meeting(file=str(Path(self._folder.name) / "meeting")), None

    def ask(self, *deed: Any) -> None:
        """See :class:`Peers`."""
        for index, connection in enumerate(self._connections):
            try:
                connection.send(deed)
            except OSError:
                raise self._lost(index) from None
            self._waiting.add(index)

    def answered(self) -> bool:
        """See :class:`Peers`."""
        for index in sorted(self._waiting):
            connection = self._connections[index]
            if not connection.poll():
                continue
            try:
                answer = connection.recv()
            except (EOFError, OSError):
                raise self._lost(index) from None
            self._waiting.discard(index)
            if isinstance(answer, UserError):
                raise answer
            if answer is not None:
                raise PeerLost(f"{self._name(index)} failed: {answer}")
        return not self._waiting

    def close(self) -> None:
        """See :class:`Peers`."""
        for connection in self._connections:
            connection.close()
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=1.0)
            if child.poll() is None:
                child.kill()
                child.wait()
        self._folder.cleanup()

    def _name(self, index: int) -> str:
        return f"process {index + 2} of {len(self._children) + 1} of the trial"

    def _lost(self, index: int) -> PeerLost:
        with suppress(subprocess.TimeoutExpired):
            self._children[index].wait(timeout=5.0)
        return PeerLost(f"{self._name(index)} ended with exit code {self._children[index].poll()}")


def visible_gpus() -> list[str]:
    """The GPUs that this process sees, as ``CUDA_VISIBLE_DEVICES`` names them."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]


class Leader(Trainer):
    """A :class:`Trainer` that other processes train along with: whatever it does, it has them do, too.

    Args:
        trial: what is trained, and by how many processes.
        launch: starts the others.

    Raises:
        UserError: config or data are not right, here or in another process.
        PeerLost: one of the others is gone. The leader is to be closed then.
    """

    def __init__(self, trial: Shared, launch: Launch) -> None:
        self._peers: Peers = launch(trial)
        self._end = weakref.finalize(self, _end, self._peers)
        try:
            with self._following("ready"):
                pass  # Until they are there, nobody waits for them.
            meeting, store = self._peers.open()
            with self._following("meet", trial, meeting):
                parts = parts_of(trial)
                super().__init__(*parts, together=meeting.join(trial, 0, store, own=meeting.host))
        except BaseException:
            self.close()
            raise

    def advance(
        self, iterations: int | None = None, seconds: float | None = None, *, to_evaluation: bool = False
    ) -> None:
        """As a :class:`Trainer`; raises :class:`PeerLost`, too."""
        with self._following("advance", iterations, to_evaluation):
            super().advance(iterations, seconds, to_evaluation=to_evaluation)

    def state_dict(self) -> dict[str, Any]:
        """As a :class:`Trainer`."""
        with self._following("save"):
            return super().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As a :class:`Trainer`, in all processes."""
        with self._following("load"):
            super().load_state_dict(self.together.decided(state))

    def close(self) -> None:
        """End the others."""
        self._end()

    @contextmanager
    def _following(self, *deed: Any) -> Iterator[None]:
        """The others do ``deed`` meanwhile. What one of them raised is raised here."""
        self._peers.ask(*deed)
        with _Watch(self._peers) as watch:
            try:
                yield
            except Diverged:
                watch.wait(None)  # So have the others.
                raise
            except Exception as error:
                # The connection to one that is gone breaks; what was wrong with it is the better word.
                try:
                    if parted(error):
                        watch.wait(GRACE)
                finally:
                    self.close()
                raise
        try:
            watch.wait(None)
        except Exception:
            self.close()
            raise


def make_trainer(trial: Shared, launch: Launch = ChildPeers) -> Trainer:
    """The trainer of a trial: by itself, or leading the others that ``launch`` starts.

    Raises:
        UserError: config or data are not right.
        PeerLost: one of the others is gone.
    """
    return Trainer(*parts_of(trial)) if trial.processes == 1 else Leader(trial, launch)


class _Watch:
    """Looks after the others in a thread, while this process may be waiting for one that is gone.

    gloo notices at once that another process is gone; NCCL waits for it. This process is then ended: its trial is one
    whose worker was killed.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._left = threading.Event()
        self._through = threading.Event()
        self._wrong: Exception | None = None
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._left.set()

    def wait(self, seconds: float | None) -> None:
        """Until all others are through, but no longer than ``seconds``; raises what one of them raised."""
        self._through.wait(seconds)
        if self._wrong is not None:
            raise self._wrong

    def _look(self) -> None:
        pause = _SOON
        try:
            while not self._peers.answered():
                # This process is about as far as the others when it has left.
                self._left.wait(pause) if not self._left.is_set() else time.sleep(_SOON)
                pause = min(_POLL, pause * 2)
        except Exception as error:  # noqa: BLE001 - raised again by wait
            self._wrong = error
        self._through.set()
        if self._wrong is not None and not self._left.wait(GRACE):
            logger.error("%s; this process waits for it and is ended", self._wrong)
            os._exit(1)


def _end(peers: Peers) -> None:
    """Part, and end the others."""
    part()
    peers.close()
