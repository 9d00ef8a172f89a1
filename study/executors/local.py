"""Trials in plain worker processes, without Ray: for tests, debugging and machines that have none."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

from study.executors.base import ExecutorSettings, Failure, OnEvent, Source, Verdict, gpus_of, share
from trainables.errors import UserError, out_of_memory
from trainables.session import Report, Session, TrialTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Raised:
    """What a worker sends when a trial raised."""

    reason: str
    traceback: str
    retry: bool


def _serve(connection: Connection, begin: type[Session], chunk_seconds: float, checkpoint_seconds: float) -> None:
    """A worker: takes trials one after another until it is sent ``None``."""
    # Ctrl-C reaches the whole process group; the driver decides what it means and stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        session: Session | None = None
        try:
            task = connection.recv()
            if task is None:
                return
            session = begin(task, checkpoint_seconds)
            while True:
                report = session.advance(chunk_seconds)
                connection.send(report)
                if report.over:
                    break
                verdict = connection.recv()
                if verdict is None:
                    return
                if verdict is Verdict.STOP:
                    break
        except (BrokenPipeError, ConnectionResetError, EOFError):
            return  # the driver is gone
        except UserError as error:
            connection.send(_Raised(str(error), "", retry=False))
        except Exception as error:  # noqa: BLE001 - whatever a method raises is the driver's to record
            connection.send(_Raised(f"{type(error).__name__}: {error}", traceback.format_exc(), retry=True))
        finally:
            if session is not None:
                session.close()


def _context(*, cuda: bool) -> SpawnContext | ForkServerContext:
    """What makes workers that share nothing with the driver.

    Where it is sound they are forked from a process that has imported what trials need and run none of it: a worker is
    there in a tenth of a second instead of several. Not for CUDA, which no fork may use once an import has looked for a
    GPU, and not on macOS, whose frameworks bear no fork.
    """
    if cuda or sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([Session.__module__])
    return context


def _as_here(environment: Mapping[str, str], serve: Callable[..., None], *arguments: Any) -> None:
    """A worker with the driver's environment of now; that of the process it was forked from may be older."""
    os.environ.clear()
    os.environ.update(environment)
    serve(*arguments)


class _Worker:
    def __init__(self, settings: ExecutorSettings, *, cuda: bool) -> None:
        context = _context(cuda=cuda)
        self.connection, other = context.Pipe()
        self.process = context.Process(
            target=_as_here,
            args=(
                dict(os.environ),
                *(_serve, other, settings.session, settings.report_seconds, settings.checkpoint_seconds),
            ),
            daemon=True,
        )
        self.process.start()
        other.close()
        self.task: TrialTask | None = None

    def give(self, task: TrialTask) -> None:
        self.task = task
        self.connection.send(task)

    def answer(self, verdict: Verdict) -> None:
        try:
            self.connection.send(verdict)
        except (BrokenPipeError, OSError):
            logger.debug("worker %s was gone before its answer came", self.process.pid)

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

    def run(self, source: Source, on_event: OnEvent) -> None:
        """Run all that ``source`` gives; see :class:`study.executors.base.Executor`."""
        retries: deque[TrialTask] = deque()
        failures: dict[str, int] = {}
        workers: list[_Worker] = []
        try:
            while True:
                self._employ(workers, source, retries)
                busy = [worker.connection for worker in workers if worker.task]
                if not busy:
                    return
                ready = wait(busy)
                for index, worker in enumerate(workers):
                    if worker.connection not in ready or worker.task is None:
                        continue
                    message = self._receive(worker)
                    if isinstance(message, Report):
                        verdict = on_event(message) or Verdict.GO
                        if not message.over:
                            worker.answer(verdict)
                            if verdict is Verdict.GO:
                                continue
                    else:
                        self._failed(worker.task, message, failures, retries, on_event)
                    worker.task = None
                    if not worker.process.is_alive():
                        worker.stop()
                        workers[index] = _Worker(self.settings, cuda=source.cuda)
        finally:
            for worker in workers:
                worker.stop()

    def _employ(self, workers: list[_Worker], source: Source, retries: deque[TrialTask]) -> None:
        """Give every free worker a trial, and start workers for what is left, up to their number."""
        # Processes that train a trial together take the first GPUs there are.
        alone = source.cuda and self.settings.processes > 1
        for index in range(1 if alone else self.settings.workers):
            if index < len(workers) and workers[index].task:
                continue
            # What an adaptive source gives next may rest on how those end that are to be tried again.
            first = retries.popleft() if retries and source.adaptive else None
            task = first or source.next() or (retries.popleft() if retries else None)
            if task is None:
                return
            if index == len(workers):
                workers.append(_Worker(self.settings, cuda=source.cuda))
            cores = share(self.settings, source.threads)
            gpus = gpus_of(self.settings, task)
            workers[index].give(replace(task, cores=cores, processes=self.settings.processes, gpus=gpus))

    @staticmethod
    def _receive(worker: _Worker) -> Any:
        try:
            return worker.connection.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join(timeout=5.0)
            return _Raised(f"its worker process ended with exit code {worker.process.exitcode}", "", retry=True)

    def _failed(
        self, task: TrialTask, raised: _Raised, failures: dict[str, int], retries: deque[TrialTask], on_event: OnEvent
    ) -> None:
        failures[task.key] = failures.get(task.key, 0) + 1
        # Beside the others it would lack memory again; the run tries it once more alone.
        if raised.retry and not out_of_memory(raised.reason) and failures[task.key] <= self.settings.max_failures:
            logger.warning("%s: %s; trying again", task.label or task.key[:12], raised.reason)
            retries.append(task)
        else:
            on_event(Failure(task.key, raised.reason, raised.traceback))
