"""Measuring trials, each in a fresh process: on this machine, or on a node of a Ray cluster."""

from __future__ import annotations

import logging
import multiprocessing
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection as Pipe
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from study.cluster.connect import Connection, quiet_output
from study.faults import first_line
from study.home import Home
from study.packing import Packing
from trainables.probe import Measured, measure
from trainables.session import TrialTask

if TYPE_CHECKING:
    from study.executors import ExecutorSettings

logger = logging.getLogger(__name__)

_SECONDS = 600.0
"""That one trial's few steps may take."""


def probe_here(tasks: Sequence[TrialTask], threads: Sequence[int] = ()) -> list[Measured | None]:
    """Measure on this machine, one after another.

    Args:
        tasks: to measure.
        threads: further numbers of torch threads to time, on a CPU.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, list(tasks), tuple(threads)))
    process.start()
    theirs.close()
    found: list[Measured | None] = []
    try:
        for task in tasks:
            found.append(_said(ours.recv(), task))
    except EOFError:
        logger.warning("trials cannot be measured: the process ended with exit code %s", process.exitcode)
    finally:
        ours.close()
        process.terminate()
        process.join()
    return found + [None] * (len(tasks) - len(found))


def _serve(connection: Pipe, tasks: Sequence[TrialTask], threads: Sequence[int]) -> None:
    """A process for every trial, so that none sees another one's memory."""
    for task in tasks:
        # A fork has the libraries imported, and may not use CUDA if anything of them has looked for a GPU before.
        spawned, forked = multiprocessing.get_context("spawn"), multiprocessing.get_context("fork")
        ours, theirs = spawned.Pipe()
        make = spawned.Process if task.device == "cuda" else forked.Process
        child = make(target=_one, args=(theirs, task, threads), daemon=True)
        child.start()
        theirs.close()
        answer: Measured | str = f"took longer than {_SECONDS:.0f} s"
        if ours.poll(_SECONDS):
            try:
                answer = ours.recv()
            except EOFError:
                child.join()
                answer = f"its process ended with exit code {child.exitcode}"
        child.kill()
        child.join()
        connection.send(answer)


def _one(connection: Pipe, task: TrialTask, threads: Sequence[int]) -> None:
    connection.send(_measured(task, threads))


def _measured(task: TrialTask, threads: Sequence[int]) -> Measured | str:
    try:
        return measure(task, threads)
    except Exception as error:  # noqa: BLE001 - a trial that cannot be measured is packed as one that is not known
        return f"{type(error).__name__}: {first_line(error)}"


def _said(answer: Measured | str, task: TrialTask) -> Measured | None:
    if isinstance(answer, Measured):
        return answer
    logger.warning("%s cannot be measured: %s", task.label or task.key[:12], answer)
    return None


def probe_on_ray(tasks: Sequence[TrialTask], threads: int, gpus: float) -> list[Measured | None]:
    """Measure on the cluster this process is connected to, as many at a time as there are places.

    Args:
        tasks: to measure.
        threads: CPUs that each takes.
        gpus: that each takes: a whole one, not to measure what its neighbours slow down.
    """
    import ray

    # A worker of its own for each.
    remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_calls=1, max_retries=0)(_measured)
    found: list[Measured | None] = []
    with quiet_output():
        waiting = [remote.remote(task, ()) for task in tasks]
        for task, answer in zip(tasks, waiting, strict=True):
            try:
                found.append(_said(ray.get(answer, timeout=_SECONDS), task))
            except ray.exceptions.RayError as error:
                found.append(_said(f"{type(error).__name__}", task))
    return found


def packed(
    settings: ExecutorSettings,
    tasks: Mapping[str, TrialTask],
    expected: Mapping[str, float],
    home: Home,
    connection: Connection | None,
    console: Console,
    *,
    one_gpu: bool = False,
) -> tuple[ExecutorSettings, Packing | None]:
    """``settings`` with what they leave to be measured, and what it was measured by, if anything was to be.

    On GPUs every kind of trial is measured once; on this machine's CPU only those that take long enough for it to pay.

    Args:
        settings: how trials are run.
        tasks: by trial key.
        expected: trial key to seconds of training.
        home: keeps what was measured.
        connection: to the cluster that was joined; ``None`` for this machine.
        console: told of it.
        one_gpu: whether trials use the first GPU of this machine alone.
    """
    listed = list(tasks.values())
    threads = max(int(task.config["train"]["threads"]) for task in listed)
    if settings.processes > 1:
        return settings, None
    if any(task.device == "cuda" for task in listed):
        if not settings.measure_gpus:
            return settings, None
        measuring = probe_here if connection is None else partial(probe_on_ray, threads=threads, gpus=1.0)
        packing = Packing(home, _gpu_name(connection), measuring)
        _say(console, packing.learn(listed))
        most = settings.workers
        if connection is None:
            gpus = 1.0 if one_gpu else float(torch.cuda.device_count())
        else:
            gpus = connection.gpus
            most = connection.slots(threads, 0.0) if settings.measure_workers else most
        return replace(settings, workers=packing.on_gpus(listed, most, gpus), gpus=packing.share), packing
    if not settings.measure_workers or connection is not None:
        return settings, None
    cores = settings.workers
    packing = Packing(home, f"cpu {platform.machine()} x{cores}", partial(probe_here, threads=_widths(threads, cores)))
    _say(console, packing.learn(listed, expected))
    advice = packing.wider(max(listed, key=lambda task: expected[task.key]), cores)
    if advice:
        console.print(advice, highlight=False)
    return replace(settings, workers=packing.on_cores(listed, cores)), packing


def _say(console: Console, count: int) -> None:
    if count:
        console.print(f"measured {count} kinds of trials by two steps each", highlight=False)


def _widths(threads: int, cores: int) -> tuple[int, ...]:
    """Further numbers of threads: doubled up to the cores."""
    found = []
    while threads * 2 <= cores:
        threads *= 2
        found.append(threads)
    return tuple(found)


def _gpu_name(connection: Connection | None) -> str:
    """Of the GPUs, without opening one: a driver that does takes memory from its trials."""
    if connection is not None:
        import ray

        kinds = sorted(name for name in ray.cluster_resources() if name.startswith("accelerator_type:"))
        return " ".join(name.partition(":")[2] for name in kinds) or "cuda"
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return "cuda"
    return " ".join(sorted({line.strip() for line in said.splitlines() if line.strip()})) or "cuda"
