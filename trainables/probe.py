"""What a trial takes: its memory and the time of an iteration, from a few steps of it."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from trainables.config import TrialConfig, data_set_of, load_trial
from trainables.session import TrialTask
from trainables.trainer import Trainer

_WARM_UP = 1
_STEPS = 2


@dataclass(frozen=True)
class Measured:
    """Of one trial, alone in a fresh process.

    Attributes:
        device: name of what it ran on.
        memory: bytes at its peak: of the device, or of the process on a CPU.
        device_memory: bytes there are.
        seconds: of an iteration, by the number of torch threads; on a GPU under 1 alone.
    """

    device: str
    memory: float
    device_memory: float
    seconds: dict[int, float]


def measure(task: TrialTask, threads: Sequence[int] = ()) -> Measured:
    """Make two steps of a trial, after one to warm up, and a forward pass over a batch of its evaluation.

    Call it in a process of its own: what an earlier trial left behind would hide what this one takes.

    Args:
        task: the trial; its checkpoint is left alone.
        threads: numbers of torch threads to time beside the config's own, on a CPU.

    Raises:
        UserError: config or data are not right.
        Exception: whatever the steps raise; of memory, too.
    """
    config = _endless(load_trial(task.config))
    before = psutil.Process().memory_info().rss
    _forget_peak()
    trainer = Trainer(config, task.data(config), task.device, task.cores)
    trainer.advance(iterations=_WARM_UP)
    cuda = trainer.device.type == "cuda"
    own = 1 if cuda else config.train.threads
    seconds = {own: _time(trainer)}
    if data_set_of(config).inputs == "images":
        _evaluate(trainer)
    if cuda:
        memory = float(torch.cuda.max_memory_allocated(trainer.device))
        properties = torch.cuda.get_device_properties(trainer.device)
        return Measured(properties.name, memory, float(properties.total_memory), seconds)
    memory = float(max(_peak() - before, 0))
    for count in threads:
        if count not in seconds:
            torch.set_num_threads(count)
            trainer.advance(iterations=_WARM_UP)
            seconds[count] = _time(trainer)
    return Measured("cpu", memory, float(psutil.virtual_memory().total), seconds)


def _evaluate(trainer: Trainer) -> None:
    """A batch of an evaluation may be larger than one of the training."""
    config = trainer.config
    height, width = data_set_of(config).image_shape(config.data)
    trainer.network.eval()
    with torch.no_grad():
        trainer.network(torch.zeros(config.record.eval_batch_size, 3, height, width, device=trainer.device))
    trainer.network.train()


def _endless(config: TrialConfig) -> TrialConfig:
    """The trial without evaluations and without an end that a few steps could reach."""
    plain = config.to_dict()
    plain["train"]["budget"]["amount"] = max(plain["train"]["budget"]["amount"], 10_000)
    plain["record"]["eval_every"] = 0
    return load_trial(plain)


def _time(trainer: Trainer) -> float:
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    started = time.perf_counter()
    trainer.advance(iterations=_STEPS)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    return (time.perf_counter() - started) / _STEPS


def _forget_peak() -> None:
    """Start the kernel's high-water mark of this process over, where it lets us."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The most resident memory since :func:`_forget_peak`, in bytes."""
    with suppress(OSError):
        for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
