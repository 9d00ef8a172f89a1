"""What a printed number says of the number it was rounded from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar


@dataclass(frozen=True)
class Interval:
    """Every value from ``low`` to ``high``, both included."""

    low: float
    high: float

    def widened(self, by: float) -> Interval:
        """The same with ``by`` more at both ends."""
        return Interval(self.low - by, self.high + by)

    def overlaps(self, other: Interval) -> bool:
        """Whether they share a value, but for the rounding of floating-point arithmetic."""
        slack = 1e-9 * max(1.0, abs(self.low), abs(self.high))
        return self.low <= other.high + slack and other.low <= self.high + slack


@dataclass(frozen=True)
class Printed:
    """A number as printed: ``0.0160`` has four decimals, so what it was rounded from is within 0.00005 of it."""

    value: float
    decimals: int

    @property
    def half_unit(self) -> float:
        """Half a unit of the last printed digit."""
        return 0.5 * 10.0**-self.decimals

    @property
    def interval(self) -> Interval:
        """All it may have been rounded from."""
        return Interval(self.value, self.value).widened(self.half_unit)


def decimals(text: str) -> int:
    """Digits behind the decimal point of a number's text, 0 without a point."""
    return len(text.partition(".")[2])


def gain_interval(values: Sequence[Printed], bases: Sequence[Printed], higher: Sequence[bool]) -> Interval:
    r"""All Delta_m (percent) that printed task numbers allow.

    Each task adds :math:`\pm(M/B - 1)`, and :math:`M/B` is largest where M is largest and B smallest, so the bounds are
    sharp. Positive numbers only, as all metrics here are.
    """
    low = high = 0.0
    for value, base, up in zip(values, bases, higher, strict=True):
        least = value.interval.low / base.interval.high - 1
        most = value.interval.high / base.interval.low - 1
        low, high = (low + least, high + most) if up else (low - most, high - least)
    return Interval(100 * low / len(values), 100 * high / len(values))


def gain_rounding_widths(values: Sequence[Printed], bases: Sequence[Printed]) -> list[float]:
    """How far, in points of Delta_m, the rounding of each printed number can move it, to first order."""
    count = len(values)
    of_values = [value.half_unit / base.value for value, base in zip(values, bases, strict=True)]
    of_bases = [value.value * base.half_unit / base.value**2 for value, base in zip(values, bases, strict=True)]
    return [100 * width / count for width in (*of_values, *of_bases)]


def chance_of_gap(gap: float, half_widths: Iterable[float]) -> float:
    r"""At most how probable it is that independent rounding errors add up to ``gap`` or more in absolute value.

    Each error is uniform within its half width h. Chernoff's bound :math:`2 \min_\lambda e^{-\lambda g}
    \prod_h \sinh(\lambda h)/(\lambda h)` holds for every number of them, without an appeal to the normal distribution.
    It is 0 where the widths do not reach the gap, and never above 1.
    """
    widths = np.array([width for width in half_widths if width > 0])
    size = abs(gap)
    if size == 0:
        return 1.0
    if size >= widths.sum():
        return 0.0

    def exponent(log_rate: float) -> float:
        argument = math.exp(log_rate) * widths
        # log(sinh(x) / x), without overflow for large x and without cancellation for small ones
        terms = np.where(
            argument < 1e-3,
            argument**2 / 6,
            argument + np.log1p(-np.exp(-2 * argument)) - np.log(2 * np.maximum(argument, 1e-300)),
        )
        return float(terms.sum() - math.exp(log_rate) * size)

    scale = math.log(3 * size / float((widths**2).sum()))
    best = minimize_scalar(exponent, bounds=(scale - 5, scale + 8), method="bounded")
    return min(1.0, 2 * math.exp(min(best.fun, 0.0)))
