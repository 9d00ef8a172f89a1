"""Processes beside a trial's own, for work that Python threads cannot share."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait

logger = logging.getLogger(__name__)

MOST_PROCESSES = 16
"""Processes that are started at most, however many cores there are."""


@contextmanager
def helpers(cores: int) -> Iterator[Executor | None]:
    """An executor of one process a core, ended with the context; ``None`` where one core is all there is.

    ``None``, too, in a daemonic process, which may have no children: the work is then done in it, with the same result.
    """
    if cores < 2 or multiprocessing.current_process().daemon:
        yield None
        return
    count = min(cores, MOST_PROCESSES)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=_leave_with_parent) as executor:
        logger.debug("%d processes help", count)
        yield executor


def _leave_with_parent() -> None:
    """A killed parent closes no queue: whoever waits at one would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        threading.Thread(target=lambda: (wait([sentinel]), os._exit(1)), daemon=True).start()
