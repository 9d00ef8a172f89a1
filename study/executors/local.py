"""Trials in plain worker processes, without Ray: for tests, debugging and machines that have none."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from study.executors.base import ExecutorSettings, Failure, OnEvent
from trainables.errors import UserError
from trainables.session import Report, Session, TrialTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Raised:
    """What a worker sends when a trial raised."""

    reason: str
    traceback: str
    retry: bool


def _serve(connection: Connection, chunk_seconds: float, checkpoint_seconds: float) -> None:
    """A worker: takes trials one after another until it is sent ``None``."""
    # Ctrl-C reaches the whole process group; the driver decides what it means and stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            task = connection.recv()
            if task is None:
                return
            session = Session(task, checkpoint_seconds)
            while True:
                report = session.advance(chunk_seconds)
                connection.send(report)
                if report.over:
                    break
        except (BrokenPipeError, ConnectionResetError, EOFError):
            return  # the driver is gone
        except UserError as error:
            connection.send(_Raised(str(error), "", retry=False))
        except Exception as error:  # noqa: BLE001 - whatever a method raises is the driver's to record
            connection.send(_Raised(f"{type(error).__name__}: {error}", traceback.format_exc(), retry=True))


class _Worker:
    def __init__(self, settings: ExecutorSettings) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve, args=(other, settings.chunk_seconds, settings.checkpoint_seconds), daemon=True
        )
        self.process.start()
        other.close()
        self.task: TrialTask | None = None

    def give(self, task: TrialTask) -> None:
        self.task = task
        self.connection.send(task)

    def stop(self) -> None:
        if self.process.is_alive():
            try:
                self.connection.send(None)
            except (BrokenPipeError, OSError):
                logger.debug("worker %s was gone before it was stopped", self.process.pid)
            self.process.join(timeout=5.0 if self.task is None else 0.1)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


class LocalExecutor:
    """Trials in ``settings.workers`` processes, each kept for trial after trial."""

    name = "local"

    def __init__(self, settings: ExecutorSettings) -> None:
        self.settings = settings

    def run(self, tasks: Sequence[TrialTask], on_event: OnEvent) -> None:
        """Run all tasks; see :class:`study.executors.base.Executor`."""
        waiting = deque(tasks)
        failures: dict[str, int] = {}
        workers: list[_Worker] = []
        try:
            workers = [_Worker(self.settings) for _ in range(min(self.settings.workers, len(tasks)))]
            for worker in workers:
                worker.give(waiting.popleft())
            while any(worker.task for worker in workers):
                ready = wait([worker.connection for worker in workers if worker.task])
                for index, worker in enumerate(workers):
                    if worker.connection not in ready or worker.task is None:
                        continue
                    message = self._receive(worker)
                    if isinstance(message, Report):
                        on_event(message)
                        if not message.over:
                            continue
                    else:
                        self._failed(worker.task, message, failures, waiting, on_event)
                    worker.task = None
                    if not worker.process.is_alive():
                        worker.stop()
                        workers[index] = _Worker(self.settings)
                    if waiting:
                        workers[index].give(waiting.popleft())
        finally:
            for worker in workers:
                worker.stop()

    @staticmethod
    def _receive(worker: _Worker) -> Any:
        try:
            return worker.connection.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join(timeout=5.0)
            return _Raised(f"its worker process ended with exit code {worker.process.exitcode}", "", retry=True)

    def _failed(
        self, task: TrialTask, raised: _Raised, failures: dict[str, int], waiting: deque[TrialTask], on_event: OnEvent
    ) -> None:
        failures[task.key] = failures.get(task.key, 0) + 1
        if raised.retry and failures[task.key] <= self.settings.max_failures:
            logger.warning("%s: %s; trying again", task.label or task.key[:12], raised.reason)
            waiting.append(task)
        else:
            on_event(Failure(task.key, raised.reason, raised.traceback))
