"""Tests on paired seeds: is one row better, are two rows the same, does one spread less; and how many seeds it takes.

All p values are for seeds drawn independently and differences that are normal. With a handful of seeds neither can be
checked; the verdicts say how many seeds they rest on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from analysis.stats import summarize

MOST_SEEDS = 1000
"""Beyond which seeds needed are not counted."""


class Question(Enum):
    """What is asked of two rows."""

    MORE = "more"
    """Is the mean of the first one larger?"""
    SAME = "same"
    """Do the means differ by less than a margin?"""
    STEADIER = "steadier"
    """Does the second one spread less over seeds than the first?"""


@dataclass(frozen=True)
class Outcome:
    """What the paired seeds of two rows say.

    Attributes:
        n: number of seeds both have.
        estimate: mean difference; for :attr:`Question.STEADIER` the ratio of standard deviations, first to second.
        sd: standard deviation of the differences; NaN for a ratio.
        low: lower end of the 95 % interval of the estimate (Student's t; Pitman and Morgan's for a ratio).
        high: its upper end.
        effect: the standardised mean difference, see :func:`hedges_g`; NaN for a ratio.
        p_for: p value of the test that would affirm the question.
        p_against: p value of the test that would deny it.
    """

    n: int
    estimate: float = math.nan
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan
    effect: float = math.nan
    p_for: float = math.nan
    p_against: float = math.nan


def ask(question: Question, left: Sequence[float], right: Sequence[float], margin: float) -> Outcome:
    """Ask one question of paired values, ``left[i]`` and ``right[i]`` of the same seed.

    - MORE: the paired t test; ``p_for`` and ``p_against`` are both two-sided by doubling, so that testing both at one
      level is testing once, two-sided.
    - SAME: two one-sided t tests (Schuirmann 1987), the larger p value; against it, that the mean lies beyond the
      margin on either side, doubled.
    - STEADIER: Pitman and Morgan's test of equal variances of paired values, doubled. It needs three seeds.

    One seed answers nothing: all p values are NaN. Differences that are the same at every seed have no spread to test
    with: no answer either, except that two rows equal to the last bit at every seed are the same.
    """
    a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if question is Question.STEADIER:
        return _steadier(a, b)
    differences = a - b
    summary = summarize(differences)
    if summary.n < 2:
        return Outcome(summary.n, summary.mean)
    scale = max(float(np.abs(a).max()), float(np.abs(b).max()))
    if summary.sd <= 1e-12 * scale:
        same = question is Question.SAME and summary.mean == 0 and margin > 0
        p_for, p_against = (0.0, 1.0) if same else (math.nan, math.nan)
    else:
        p_for, p_against = _t_tests(question, summary.mean, summary.sd, summary.n, margin)
    return Outcome(
        summary.n, summary.mean, summary.sd, summary.low, summary.high, hedges_g(differences), p_for, p_against
    )


def hedges_g(differences: Sequence[float] | NDArray[np.float64]) -> float:
    r"""Cohen's d of paired differences (mean over standard deviation), corrected for small samples.

    The factor is the exact :math:`\Gamma(f/2) / (\sqrt{f/2}\,\Gamma((f-1)/2))` for :math:`f = n-1` (Hedges 1981). With
    two differences no unbiased correction exists: NaN, as for no spread.
    """
    values = np.asarray(differences, dtype=np.float64)
    freedom = len(values) - 1
    if freedom < 2 or values.std(ddof=1) == 0:
        return math.nan
    log_factor = special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2) - 0.5 * math.log(freedom / 2)
    return float(values.mean() / values.std(ddof=1) * math.exp(log_factor))


def seeds_needed(
    question: Question,
    outcome: Outcome,
    left: Sequence[float],
    right: Sequence[float],
    *,
    margin: float,
    level: float,
    power: float,
) -> float:
    """The smallest number of seeds, those there are included, that decides the question either way with ``power``.

    For the mean and spread observed, which few seeds give roughly: a number to plan with. ``level`` is that of a single
    test. Infinite beyond :data:`MOST_SEEDS`, NaN where there is no spread to plan with.

    - MORE: power of the two-sided paired t test by the noncentral t distribution.
    - SAME: of both one-sided tests together, at least the sum of their powers less one; where the mean is observed
      beyond the margin, of the test that it is.
    - STEADIER: of the correlation Pitman and Morgan test, by Fisher's transformation.
    """
    if question is Question.STEADIER:
        return _seeds_for_spread(left, right, level, power)
    if not outcome.sd > 0:
        return math.nan
    counts = np.arange(2, MOST_SEEDS + 1)
    shift = abs(outcome.estimate)
    if question is Question.MORE:
        reached = _power(shift / outcome.sd, counts, level / 2)
    elif shift < margin:
        near, far = ((margin + sign * shift) / outcome.sd for sign in (-1, 1))
        reached = _power(near, counts, level) + _power(far, counts, level) - 1
    else:
        reached = _power((shift - margin) / outcome.sd, counts, level / 2)
    enough = np.flatnonzero(reached >= power)
    return float(counts[enough[0]]) if len(enough) else math.inf


def _power(effect: float, counts: NDArray[np.int64], tail: float) -> NDArray[np.float64]:
    """Of one-sided t tests at ``tail``, for each number of seeds."""
    freedom = counts - 1
    critical = stats.t.ppf(1 - tail, freedom)
    noncentrality = effect * np.sqrt(counts)
    power = np.asarray(stats.nct.sf(critical, freedom, noncentrality), dtype=np.float64)
    # The distribution is NaN far out, where the power is 1 to every digit.
    return np.where(np.isnan(power), (noncentrality > critical).astype(np.float64), power)


def _t_tests(question: Question, mean: float, sd: float, n: int, margin: float) -> tuple[float, float]:
    error, freedom = sd / math.sqrt(n), n - 1

    def tail(t: float) -> float:
        return float(stats.t.sf(t, freedom))

    if question is Question.MORE:
        return min(1.0, 2 * tail(mean / error)), min(1.0, 2 * tail(-mean / error))
    inside = max(tail((margin - mean) / error), tail((margin + mean) / error))
    outside = min(tail((mean - margin) / error), tail((-mean - margin) / error))
    return inside, min(1.0, 2 * outside)


def _steadier(a: NDArray[np.float64], b: NDArray[np.float64]) -> Outcome:
    n = len(a)
    sd_a, sd_b = (float(x.std(ddof=1)) if n > 1 else math.nan for x in (a, b))
    if not (sd_a > 0 and sd_b > 0):
        return Outcome(n)
    ratio = sd_a / sd_b
    if n < 3:
        return Outcome(n, ratio)
    tilt, between = _tilt(a, b), float(np.corrcoef(a, b)[0, 1])
    if abs(tilt) >= 1 or abs(between) >= 1:
        return Outcome(n, ratio)
    t = tilt * math.sqrt((n - 2) / (1 - tilt**2))
    p_for, p_against = (min(1.0, 2 * float(stats.t.sf(sign * t, n - 2))) for sign in (1, -1))
    quantile = float(stats.t.ppf(0.975, n - 2))
    k = 1 + 2 * (1 - between**2) * quantile**2 / (n - 2)
    spread = math.sqrt(k + math.sqrt(k**2 - 1))
    return Outcome(n, ratio, math.nan, ratio / spread, ratio * spread, math.nan, p_for, p_against)


def _tilt(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The correlation of difference and sum, which is 0 where the variances are equal."""
    return float(np.corrcoef(a - b, a + b)[0, 1])


def _seeds_for_spread(left: Sequence[float], right: Sequence[float], level: float, power: float) -> float:
    if len(left) < 3:
        return math.nan
    a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not (a.std() > 0 and b.std() > 0 and (a - b).std() > 0 and (a + b).std() > 0):
        return math.nan
    size = math.atanh(min(abs(_tilt(a, b)), 1 - 1e-12))
    wanted = float(stats.norm.ppf(1 - level / 2) + stats.norm.ppf(power))
    needed = math.ceil((wanted / size) ** 2 + 3) if size > 1e-6 else math.inf
    return float(needed) if needed <= MOST_SEEDS else math.inf
