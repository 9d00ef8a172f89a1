"""How many trials fit on a device: measured by two steps of each kind of trial, kept with the records.

Only where trials run and how many at a time follows from it. What is part of a trial's key, like its torch threads,
is never changed.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from study.home import Home
from trainables.config import TrialConfig, data_set_of, load_trial, tasks_of
from trainables.probe import Measured
from trainables.session import TrialTask

logger = logging.getLogger(__name__)

HEAD_ROOM = 1.2
"""Times the measured peak: what later steps and fragments of the allocator take."""
CUDA_CONTEXT = 0.75 * 2**30
"""Bytes of a GPU that every process takes beside its tensors: CUDA's context and the libraries' kernels."""
_PROCESS = 0.4 * 2**30
"""Bytes of a machine that every worker takes beside its trial: Python and the libraries."""
_RAISE = 1.5
_MOST_PER_GPU = 16
"""Trials on one GPU: more only wait for one another's kernels."""
_WORTH_SECONDS = 300.0
"""Of training that a kind of trial is expected to take on a CPU for a probe of it to pay."""
_FASTER = 1.1
_FREE = 0.9

Measure = Callable[[Sequence[TrialTask]], Sequence[Measured | None]]
"""Measures one trial after another, each in a process of its own; ``None`` for one that cannot be made to run alone."""


def class_of(config: TrialConfig) -> str:
    """The kind of a trial: those of one kind take the same memory and time."""
    shape = "x".join(map(str, data_set_of(config).image_shape(config.data)))
    model = config.model.to_dict()
    parts = [
        str(model.pop("backbone")),
        f"{config.data.name} {shape}",
        f"batch {config.train.batch_size}",
        f"evaluation {config.record.eval_batch_size}",
        config.train.precision + (" compiled" if config.train.compile else ""),
        config.method.name,
        ",".join(sorted(task.name for task in tasks_of(config))),
        json.dumps({name: model[name] for name in sorted(model) if name not in ("pretrained", "drop_path")}),
    ]
    return " | ".join(parts)


@dataclass(frozen=True)
class Footprint:
    """What trials of a kind take on a kind of device.

    Attributes:
        memory: bytes at the peak, with what was learned from trials that ran out of it.
        device_memory: bytes the device has.
        seconds: of an iteration alone, by number of torch threads; 1 on a GPU.
        raised: how often a trial of the kind ran out of memory.
    """

    memory: float
    device_memory: float
    seconds: Mapping[str, float]
    raised: int = 0

    @property
    def share(self) -> float:
        """Of a GPU: 1/n where n of them fit, rounded down to what Ray counts in."""
        fit = int(self.device_memory // (self.memory * HEAD_ROOM + CUDA_CONTEXT))
        return math.floor(10_000 / min(max(fit, 1), _MOST_PER_GPU)) / 10_000


class Footprints:
    """The file of a home that holds them, by device and kind of trial.

    A file that cannot be read is started anew: all in it can be measured again.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._path = home.path / "footprints.json"

    def read(self) -> dict[str, dict[str, Footprint]]:
        """All that are known."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return {
                device: {kind: Footprint(**fields) for kind, fields in kinds.items()} for device, kinds in found.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            logger.warning("%s: cannot be read (%s); measured again", self._path, error)
            return {}

    def add(self, device: str, kind: str, footprint: Footprint) -> None:
        """Write one down beside those of other drivers."""
        with self._home.critical():
            found = self.read()
            found.setdefault(device, {})[kind] = footprint
            plain = {name: {k: asdict(f) for k, f in sorted(kinds.items())} for name, kinds in sorted(found.items())}
            part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
            part.write_text(json.dumps(plain, indent=1), encoding="utf-8")
            os.replace(part, self._path)


class Packing:
    """What is known of the trials of a run, and what follows for where they go.

    Args:
        home: keeps what was measured.
        device: name of the devices that trials run on.
        measure: measures trials.
    """

    def __init__(self, home: Home, device: str, measure: Measure) -> None:
        self.device = device
        self._file = Footprints(home)
        self._measure = measure
        self._known = self._file.read().get(device, {})
        self._kinds: dict[str, str] = {}

    # ---- measuring -------------------------------------------------------------------------------

    def learn(self, tasks: Sequence[TrialTask], expected: Mapping[str, float] | None = None) -> int:
        """Measure each kind of trial that is not known; returns how many were measured.

        Args:
            tasks: of the run.
            expected: trial key to seconds of training: kinds that take little in all are left out. ``None`` for all.
        """
        total: dict[str, float] = {}
        first: dict[str, TrialTask] = {}
        for task in tasks:
            kind = self.kind(task)
            first.setdefault(kind, task)
            total[kind] = total.get(kind, 0.0) + (expected[task.key] if expected is not None else math.inf)
        wanted = {kind: t for kind, t in first.items() if kind not in self._known and total[kind] >= _WORTH_SECONDS}
        done = 0
        for kind, found in zip(wanted, self._measure(list(wanted.values())) if wanted else (), strict=True):
            if found is None:
                continue
            seconds = {str(threads): value for threads, value in found.seconds.items()}
            self._learned(kind, Footprint(found.memory, found.device_memory, seconds))
            done += 1
        return done

    def _learned(self, kind: str, footprint: Footprint) -> None:
        self._known[kind] = footprint
        self._file.add(self.device, kind, footprint)

    def kind(self, task: TrialTask) -> str:
        """Of a trial; see :func:`class_of`."""
        if task.key not in self._kinds:
            self._kinds[task.key] = class_of(load_trial(task.config))
        return self._kinds[task.key]

    def known(self, task: TrialTask) -> Footprint | None:
        """What trials of its kind take, if that is known."""
        return self._known.get(self.kind(task))

    # ---- what follows ----------------------------------------------------------------------------

    def share(self, task: TrialTask) -> float:
        """Of a GPU for a trial: 0 for one that needs none, a whole one for a kind that is not known."""
        if task.device != "cuda":
            return 0.0
        known = self.known(task)
        return 1.0 if known is None else known.share

    def starved(self, task: TrialTask) -> None:
        """A trial of this kind ran out of memory beside others: from now on fewer of its kind go together."""
        known = self.known(task)
        if known is None:
            return
        raised = replace(known, memory=known.memory * _RAISE, raised=known.raised + 1)
        while raised.share == known.share < 1.0:
            raised = replace(raised, memory=raised.memory * _RAISE)
        self._learned(self.kind(task), raised)

    def on_gpus(self, tasks: Sequence[TrialTask], workers: int, gpus: float) -> int:
        """Trials at a time on ``gpus`` GPUs, at most ``workers``."""
        smallest = min((self.share(task) for task in tasks if task.device == "cuda"), default=1.0)
        return max(1, min(workers, int(gpus * int(1.0 / smallest))))

    def on_cores(self, tasks: Sequence[TrialTask], cores: int, available: float | None = None) -> int:
        """Trials at a time on this machine's CPU: as many as have a core for each of their threads and memory.

        Args:
            tasks: of the run.
            cores: usable ones.
            available: bytes of memory; those that are free now where it is not given.
        """
        threads = max((int(task.config["train"]["threads"]) for task in tasks), default=1)
        fit = cores // threads
        largest = max((known.memory for task in tasks if (known := self.known(task))), default=0.0)
        if largest:
            free = psutil.virtual_memory().available if available is None else available
            fit = min(fit, int(free * _FREE // (largest * HEAD_ROOM + _PROCESS)))
        return max(1, fit)

    def wider(self, task: TrialTask, cores: int) -> str:
        """That fewer trials with more threads each would be done earlier, in words; empty where they would not.

        Only said: threads are part of a trial's key.
        """
        known = self.known(task)
        threads = int(task.config["train"]["threads"])
        if known is None or str(threads) not in known.seconds:
            return ""
        rate = {int(count): (cores // int(count)) / seconds for count, seconds in known.seconds.items() if seconds > 0}
        best = max(rate, key=lambda count: rate[count], default=threads)
        if best <= threads or rate[best] < _FASTER * rate[threads]:
            return ""
        return (
            f"{best} threads for each trial would be {rate[best] / rate[threads]:.1f} times as fast as {threads} here; "
            f"they are part of a trial's key and stay as they are (--set train.threads={best} asks for other trials)"
        )


def in_order(tasks: Mapping[str, TrialTask], expected: Mapping[str, float]) -> list[str]:
    """Trial keys, the longest expected first; of about the same length, those of one backbone and data after one
    another, so that a worker that is free finds one that it is warm for."""

    def place(key: str) -> tuple[float, str, str]:
        config: Mapping[str, Any] = tasks[key].config
        warm = json.dumps([config["model"], config["data"]], sort_keys=True, default=str)
        return (-float(f"{expected[key]:.1e}"), warm, str(config["method"]["name"]))

    return sorted(tasks, key=place)
