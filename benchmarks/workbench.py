"""One network, one optimizer and one batch, on which every contestant takes its steps under one clock."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from trainables.clock import MANIPULATION, PhaseClock
from trainables.config import data_set_of, load_trial
from trainables.kernels import Kernels
from trainables.methods import Losses, Method, StepLog, Update
from trainables.trainer import Trainer


@dataclass(frozen=True)
class Setting:
    """What is trained, on what.

    Attributes:
        task_set: of data set ``scenes``.
        backbone: by its name.
        image_size: side of an image, in pixels.
        batch: samples.
        device: ``cpu`` or ``cuda``.
        kernels: what multiplies matrices on a CPU.
        cut: whether the trunk's graph is cut at its stages, as streamed rows want it.
    """

    task_set: str
    backbone: str
    image_size: int
    batch: int
    device: str
    kernels: Kernels = "torch"
    cut: bool = False

    def config(self) -> dict[str, Any]:
        """The trial config: real images and losses, a step size at which nothing moves far."""
        return {
            "data": {"name": "scenes", "image_size": self.image_size, "train": self.batch, "val": 1, "test": 1},
            "tasks": {"set": self.task_set},
            "model": {"backbone": self.backbone, "drop_path": 0.0},
            "optim": {"lr": 1e-5, "schedule": "constant"},
            "train": {"batch_size": self.batch, "budget": {"amount": 10**9}, "threads": 1, "kernels": self.kernels},
            "record": {"eval_every": 0},
            # Keeps the trunk apart from the decoders, as methods need it that read the representation.
            "method": {"name": "mgda", "rows": "streamed" if self.cut else "kept"},
        }


Make = Callable[[Update], Method]
"""Builds a contestant for a network."""


@dataclass(frozen=True)
class Step:
    """One measured step.

    Attributes:
        seconds: of the whole step.
        phases: of its parts, by the names of :data:`trainables.clock.PHASES`; ``gradient_manipulation`` is what is
            left of the step beside the phases that are timed.
        groups: how many groups were stepped; 1 for methods without groups.
    """

    seconds: float
    phases: dict[str, float]
    groups: int


class ProcessClock(PhaseClock):
    """Counts the processor time of this process, of which other processes on the machine take nothing."""

    def _now(self) -> float:
        return time.process_time()


class _Timed(Method):
    """Passes a step on and notes what it took."""

    def __init__(self, method: Method, now: Callable[[], float]) -> None:
        self.method = method
        self.now = now
        self.seconds = 0.0
        self.groups = 1

    def step(self, losses: Losses) -> StepLog:
        started = self.now()
        log = self.method.step(losses)
        self.seconds = self.now() - started
        self.groups = 1 if log.groups is None else len(log.groups)
        # Curves and groups belong to no one trial here.
        return StepLog(losses=log.losses)


class Workbench:
    """The trainer of a trial, whose method is exchanged from step to step.

    Args:
        setting: what is trained.
        data_root: where the data set is built, or found.
    """

    def __init__(self, setting: Setting, data_root: Path) -> None:
        self.setting = setting
        config = load_trial(setting.config())
        data_set_of(config).prepare(config.data, data_root)
        self.trainer = Trainer(config, data_root, setting.device)
        self.cuda = self.trainer.device.type == "cuda"
        if not self.cuda:
            self.trainer.update.clock = ProcessClock()

    @property
    def shared_bytes(self) -> int:
        """Of the trunk's parameters: what one row of task gradients takes."""
        return sum(p.numel() * p.element_size() for p in self.trainer.update.shared)

    def step(self, method: Method) -> Step:
        """One step on the batch. On a GPU two: one that waits at its ends only, for the time of the whole, and one that
        waits around each phase."""
        if self.cuda:
            self.trainer.update.clock = PhaseClock(self.trainer.device)
            whole, _ = self._timed(method)
            self.trainer.update.clock = PhaseClock(self.trainer.device, exact=True)
            split, phases = self._timed(method)
        else:
            whole, phases = self._timed(method)
            split = whole
        phases[MANIPULATION] = split.seconds - sum(phases.values())
        return Step(whole.seconds, phases, whole.groups)

    def _timed(self, method: Method) -> tuple[_Timed, dict[str, float]]:
        clock = self.trainer.update.clock
        before = dict(clock.seconds)
        timed = _Timed(method, self._now)
        self.trainer.method = timed
        self.trainer.advance(iterations=1)
        return timed, {phase: seconds - before[phase] for phase, seconds in clock.seconds.items()}

    def _now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize(self.trainer.device)
            return time.perf_counter()
        return time.process_time()


@dataclass(frozen=True)
class Memory:
    """Of a few steps of one method, in bytes.

    Attributes:
        peak: the most held at once.
        state: tensors that the method remembers between steps and saves.
    """

    peak: int
    state: int


def memory_of(setting: Setting, data_root: Path, make: Make, steps: int = 2) -> Memory:
    """The most memory held at once, from building the network to the end of a few steps, and what the method keeps.

    On a GPU that is what its allocator counts. On a CPU it is the running sum of torch's own allocations and releases,
    as its profiler reports every one of them: parameters, moments, graph, rows, all temporaries; not the interpreter.
    """
    gc.collect()

    def run() -> int:
        bench = Workbench(setting, data_root)
        method = make(bench.trainer.update)
        bench.trainer.method = _Timed(method, time.perf_counter)
        bench.trainer.advance(iterations=steps)
        return _bytes_of(method.state_dict())

    if setting.device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        state = run()
        return Memory(torch.cuda.max_memory_allocated() - before, state)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        state = run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return Memory(peak, state)


def _bytes_of(state: object) -> int:
    """Of the tensors in what a method saves: dicts and lists of tensors and plain values."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return sum(_bytes_of(part) for part in parts)
