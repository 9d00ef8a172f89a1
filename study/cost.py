"""How long trials take: from the records where they know, from a measured machine speed where they do not."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from mlflow import MlflowClient

from study import schema
from study.plan import Trial
from study.tracking import flatten, search
from trainables.config import TrialConfig, data_set_of, method_of, tasks_of
from trainables.models.backbones import backbone_spec

# Share of a plain matrix product's speed that a small transformer's training reaches; only for estimates without any
# record.
_EFFICIENCY = 0.4


@dataclass(frozen=True)
class Estimate:
    """Of the work left.

    Attributes:
        seconds: of training, on one worker.
        measured: whether it rests on recorded trials of the same kind, rather than on this machine's speed alone.
    """

    seconds: float
    measured: bool


def expected_passes(config: TrialConfig) -> float:
    """Trunk passes (forward and backward) the trial is expected to make."""
    names = [task.name for task in tasks_of(config)]
    forward, backward, _ = method_of(config).expected_work(config.method, names)
    if config.train.budget.unit == "trunk_passes":
        return float(config.train.budget.amount)
    return expected_iterations(config) * (forward + backward)


def expected_iterations(config: TrialConfig) -> float:
    """Iterations the trial is expected to make."""
    budget = config.train.budget
    names = [task.name for task in tasks_of(config)]
    forward, backward, steps = method_of(config).expected_work(config.method, names)
    each = {"iterations": 1.0, "optimizer_steps": float(steps), "trunk_passes": float(forward + backward)}
    return budget.amount / each[budget.unit]


class CostModel:
    """Seconds per trunk pass, by backbone, image size, batch size and number of tasks.

    Args:
        client: of the records to learn from; ``None`` for none.
    """

    def __init__(self, client: MlflowClient | None) -> None:
        self._known: dict[tuple[str, ...], list[float]] = {}
        self._speed: float | None = None
        if client is not None:
            query = f"tags.{schema.KIND} = '{schema.TRIAL_RUN}' and attributes.status = 'FINISHED'"
            for run in search(client, query):
                passes = run.data.metrics.get(schema.cost("trunk_passes"), 0.0)
                seconds = run.data.metrics.get(schema.cost("seconds"), 0.0)
                if passes > 0 and seconds > 0:
                    self._known.setdefault(_kind(run.data.params), []).append(seconds / passes)

    def estimate(self, trials: Iterable[Trial]) -> Estimate:
        """For all of ``trials`` together."""
        total, measured = 0.0, True
        for trial in trials:
            seconds, known = self.trial_seconds(trial.config)
            total += seconds
            measured &= known
        return Estimate(total, measured)

    def seconds(self, trials: Iterable[Trial]) -> dict[str, float]:
        """Each trial's training time by its key."""
        return {trial.key: self.trial_seconds(trial.config)[0] for trial in trials}

    def trial_seconds(self, config: TrialConfig) -> tuple[float, bool]:
        """One trial's training time, and whether recorded trials of its kind say so."""
        passes = expected_passes(config)
        known = self._known.get(_kind({name: str(value) for name, value in flatten(config.to_dict()).items()}))
        if known:
            return passes * median(known), True
        spec = backbone_spec(config.model.backbone)
        operations = spec.operations(data_set_of(config).image_shape(config.data))
        flops = 2.0 * operations * config.train.batch_size
        # A backward pass costs two forwards, and there are about as many of each.
        return passes * 1.5 * flops / (self._machine_speed() * _EFFICIENCY), False

    def _machine_speed(self) -> float:
        """Operations per second of a matrix product on one thread."""
        if self._speed is None:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            matrix = torch.ones(512, 512)
            matrix @ matrix
            started = time.perf_counter()
            for _ in range(5):
                matrix @ matrix
            self._speed = 5 * 2 * 512**3 / (time.perf_counter() - started)
            torch.set_num_threads(threads)
        return self._speed


def _kind(params: Mapping[str, str]) -> tuple[str, ...]:
    include = params.get("tasks.include", "None")
    count = "all" if include == "None" else str(include.count("'") // 2)
    fields = ("model.backbone", "data.name", "data.image_size", "train.batch_size", "train.precision", "tasks.set")
    return (*(params.get(field, "") for field in fields), count)
