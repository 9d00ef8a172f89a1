"""Where the time of training goes: the phases of the paper's Table E.1."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

FORWARD = "forward"
BACKWARD = "backward"
OPTIMIZER = "optimizer_step"
CLUSTERING = "clustering_and_affinity"
MANIPULATION = "gradient_manipulation"
"""What a method does beside the others: solvers, recombination, weights."""
TIMED = (FORWARD, BACKWARD, OPTIMIZER, CLUSTERING)
PHASES = (FORWARD, BACKWARD, MANIPULATION, OPTIMIZER, CLUSTERING)


class PhaseClock:
    """Adds up seconds by phase. Phases do not nest.

    Args:
        device: waited for at every phase's ends where it is ``cuda`` and ``exact`` is set; work is only queued there,
        and a phase that does not wait is charged to the one that does. exact: as above. Costs throughput on a GPU.
    """

    def __init__(self, device: torch.device | None = None, *, exact: bool = False) -> None:
        self._wait = exact and device is not None and device.type == "cuda"
        self._device = device
        self.seconds = dict.fromkeys(TIMED, 0.0)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Charge the block to ``phase``."""
        started = self._now()
        try:
            yield
        finally:
            self.seconds[phase] += self._now() - started

    def _now(self) -> float:
        if self._wait:
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
