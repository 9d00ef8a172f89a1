"""What a trial takes of the machines: how many processes, and so how many GPUs, train it together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from study import schema
from trainables.errors import ConfigError
from trainables.settings import Settings

if TYPE_CHECKING:
    from study.executors import ExecutorSettings
    from trainables.config import TrialConfig


class Resources(Settings):
    """What each trial of a study takes. No part of its key: results are equal up to rounding."""

    gpus: int | None = Field(default=None, ge=1, le=1024)
    """GPUs that each trial is trained on together, by one process for each; read where trials train on GPUs. ``null``:
    one, or a share of one that is measured. ``--gpus-per-trial`` goes before it."""
    processes: int | None = Field(default=None, ge=1, le=1024)
    """Processes that each trial is trained by together, on any device. ``null``: as many as GPUs. ``--processes`` goes
    before it."""


def settled(
    settings: ExecutorSettings, device: str, configs: Iterable[TrialConfig], resources: Resources | None = None
) -> ExecutorSettings:
    """``settings`` with the number of processes for a trial, and with it the GPUs it takes: one for each.

    Args:
        settings: 0 processes for what ``resources`` say.
        device: ``cpu`` or ``cuda``.
        configs: of the trials.
        resources: of the study.

    Raises:
        ConfigError: a trial is to have one and a half GPUs, fewer GPUs than processes, or a batch smaller than its
            processes.
    """
    resources = resources or Resources()
    cuda, asked = device == "cuda", settings.gpus_per_trial
    processes = settings.processes
    if cuda and asked > 1.0:
        if asked != int(asked) or (processes > 1 and processes != asked):
            number = f" for {processes} processes" if processes > 1 else ""
            raise ConfigError(f"--gpus-per-trial {asked:g}: above 1, a whole number{number} is wanted")
        processes = int(asked)
    shares = not settings.measure_gpus and asked < 1.0
    if not processes:
        processes = resources.processes or (cuda and not shares and resources.gpus) or 1
    if processes == 1:
        return replace(settings, processes=1)
    if cuda and shares:
        raise ConfigError(f"--gpus-per-trial {asked:g}: {processes} processes train a trial on a GPU each")
    smallest = min((config.train.batch_size for config in configs), default=processes)
    if smallest < processes:
        raise ConfigError(f"--processes {processes}: a trial has batches of {smallest}; each process needs a sample")
    gpus = float(processes) if cuda else settings.gpus_per_trial
    return replace(settings, processes=processes, gpus_per_trial=gpus, measure_gpus=False)


def held_tags(worker: Mapping[str, str]) -> dict[str, str]:
    """How many processes train a trial, and the GPUs or cores that they hold, from what its worker says of itself."""
    if "processes" not in worker:
        return {}
    gpus, processes = float(worker.get("gpus", 0)), int(worker["processes"])
    held = gpus if gpus > 0 else processes * int(worker["threads"])
    return {schema.PROCESSES: str(processes), schema.HELD: f"{held:g}"}


def device_hours(seconds: float, tags: Mapping[str, str]) -> tuple[str, float]:
    """What a recorded trial took: ``GPU-hours`` or ``core-hours``, and how many. One device, where the record is older
    than the tag that says how many."""
    unit = "GPU-hours" if tags.get(schema.DEVICE, "").startswith("cuda") else "core-hours"
    return unit, seconds * float(tags.get(schema.HELD, 1.0)) / 3600.0
