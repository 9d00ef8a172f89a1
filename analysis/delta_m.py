"""Delta_m: one number for how a multi-task network compares with single-task ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

from trainables.errors import ConfigError


def delta_m(values: Mapping[str, float], baseline: Mapping[str, float], higher_is_better: Mapping[str, bool]) -> float:
    r"""The mean relative gain over the single-task baseline, in percent; positive is better than the baseline.

    .. math:: \Delta_m = \frac{100}{K} \sum_{i=1}^{K} (-1)^{l_i} \frac{M_i - B_i}{B_i}

    with :math:`l_i = 1` where a lower metric is better and 0 elsewhere (Maninis et al., "Attentive Single-Tasking of
    Multiple Tasks", CVPR 2019; Appendix C of the paper under study).

    A value that is not a finite number, on either side, makes the result NaN: it is never averaged away over the
    other tasks. :func:`incomplete_tasks` lists them.

    Args:
        values: task name to the measured metric, K of them.
        baseline: task name to the single-task metric.
        higher_is_better: task name to the direction of its metric.

    Raises:
        ConfigError: the three do not name the same tasks, there is none, or a baseline is zero.
    """
    _check_tasks(values, baseline, "the baseline")
    _check_tasks(values, higher_is_better, "the directions")
    if not values:
        raise ConfigError("Delta_m: no task given")
    zeros = [task for task, base in baseline.items() if base == 0]
    if zeros:
        raise ConfigError(f"Delta_m is undefined: the baseline of {', '.join(sorted(zeros))} is 0")
    if incomplete_tasks(values) or incomplete_tasks(baseline):
        return math.nan
    gains = (
        (1 if higher_is_better[task] else -1) * (values[task] - baseline[task]) / baseline[task] for task in values
    )
    return 100 * math.fsum(gains) / len(values)


def incomplete_tasks(values: Mapping[str, float]) -> tuple[str, ...]:
    """The tasks whose value is no finite number, in the order given."""
    return tuple(task for task, value in values.items() if not math.isfinite(value))


def _check_tasks(values: Mapping[str, float], other: Mapping[str, object], name: str) -> None:
    if values.keys() != other.keys():
        odd = ", ".join(sorted(values.keys() ^ other.keys()))
        raise ConfigError(f"Delta_m: the values and {name} must name the same tasks, and differ in {odd}")
