"""Mean, spread and interval over seeds.

The convention of every table here: the baseline is the mean over its own seeds, one fixed number per task. Each seed
of a row has its Delta_m against that fixed baseline, and a row's spread is the sample standard deviation of those.
The baseline's own noise is therefore not part of a row's spread; the paired spread (each seed against the baseline of
the same seed) has it in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from trainables.errors import ConfigError


@dataclass(frozen=True)
class Summary:
    """What a handful of seeds say.

    Attributes:
        n: number of values.
        mean: their mean; NaN for none.
        sd: sample standard deviation (divisor n - 1); NaN for fewer than two values.
        low: lower end of the two-sided Student-t interval of the mean; NaN for fewer than two values.
        high: its upper end.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval's width: mean ± half_width."""
        return (self.high - self.low) / 2


def summarize(values: Iterable[float], confidence: float = 0.95) -> Summary:
    """Mean, sample standard deviation and Student-t interval of ``values``.

    A NaN among them makes every number NaN: a value that is missing is for the caller to leave out and to say so.

    Raises:
        ConfigError: ``confidence`` is not strictly between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence {confidence} is not allowed (allowed: between 0 and 1, exclusive)")
    array = np.fromiter(values, dtype=np.float64)
    n = len(array)
    if n == 0:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    mean = float(array.mean())
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    sd = float(array.std(ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number by Holm's step-down method, in the order given.

    Reject where the result is at most the level: the chance of one false rejection or more is then at most the level,
    whatever the dependence (Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979). A NaN is no test:
    it stays NaN and does not count.
    """
    values = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = len(order) - np.arange(len(order))
    corrected = np.full(len(values), math.nan)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return [float(value) for value in corrected]
