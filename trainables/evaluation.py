"""A network's metrics over a whole split: batches streamed, slow metrics helped, progress logged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from trainables.data.loader import Batch
from trainables.errors import Diverged
from trainables.metrics import SumMetric
from trainables.processes import helpers
from trainables.tasks import Metric, Task
from trainables.together import Together

logger = logging.getLogger(__name__)

HELP_SECONDS = 5.0
"""After which an evaluation starts processes to help its slow metrics; most are over by then."""
LOG_SECONDS = 30.0
"""Between two lines about how far an evaluation is."""

Predict = Callable[[Tensor], Mapping[str, Tensor]]
"""Images (B, 3, H, W) to every task's prediction (B, C, H, W)."""

Metrics = Mapping[str, Mapping[str, Metric]]
"""Task to its metrics by name."""


@torch.no_grad()
def evaluate(
    predict: Predict,
    batches: Iterable[Batch],
    tasks: Sequence[Task],
    *,
    samples: int,
    name: str,
    iteration: int,
    cores: int,
) -> Metrics:
    """Every task's metrics, all batches taken in.

    Args:
        predict: the network, in evaluation mode.
        batches: images and labels, on the network's device. Empty ones are passed over.
        tasks: what to measure.
        samples: that the batches have, for the log.
        name: of the split, for messages.
        iteration: of the network, for messages; counted from 0.
        cores: that metrics may use. How many there are changes no result.

    Raises:
        Diverged: a prediction is not finite.
    """
    metrics = {task.name: task.make_metrics() for task in tasks}
    every = [metric for own in metrics.values() for metric in own.values()]
    slow = [metric for metric in every if isinstance(metric, SumMetric) and metric.spreads]
    started = logged = time.monotonic()
    seen, helped = 0, False
    with ExitStack() as stack:
        try:
            for images, targets in batches:
                if not len(images):
                    continue  # Every sample of it was left out.
                outputs = predict(images)
                for task in tasks:
                    if not bool(torch.isfinite(outputs[task.name]).all()):
                        raise Diverged(f"predictions of {task.name} on the {name} split", iteration)
                    for metric in metrics[task.name].values():
                        metric.update(outputs[task.name], targets[task.label])
                seen += len(images)
                now = time.monotonic()
                if slow and not helped and now - started >= HELP_SECONDS:
                    helped = True
                    executor = stack.enter_context(helpers(cores))
                    for metric in slow:
                        metric.executor = executor
                if now - logged >= LOG_SECONDS:
                    logged = now
                    logger.info("%s: %d of %d samples in %.0f s", name, seen, samples, now - started)
        finally:
            for metric in slow:
                metric.executor = None
    return metrics


def values(metrics: Metrics) -> dict[str, float]:
    """``task/metric`` to its value; NaN where the split has no valid pixel for it."""
    return {f"{task}/{name}": metric.compute() for task, own in metrics.items() for name, metric in own.items()}


def merged(together: Together, tasks: Sequence[Task], measure: Callable[[], Metrics]) -> Metrics:
    """What ``measure`` gives over all processes that evaluate together, each its share of a split; the same in all.

    Raises:
        Diverged: in all of them, what one of them found.
    """
    if together.alone:
        return measure()
    found: Metrics = {}
    wrong: Diverged | None = None
    try:
        found = measure()
    except Diverged as error:
        wrong = error
    for other in together.gathered(wrong):
        if other is not None:
            raise other
    states = together.gathered({task: {name: m.state_dict() for name, m in own.items()} for task, own in found.items()})
    out = {task.name: task.make_metrics() for task in tasks}
    for state in states:
        part = {task.name: task.make_metrics() for task in tasks}
        for task, own in part.items():
            for name, metric in own.items():
                metric.load_state_dict(state[task][name])
                out[task][name].merge(metric)
    return out
