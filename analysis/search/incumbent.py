"""How good a search was after how much work: best so far, and what no other trial beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.search.records import WHOLE

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Progress:
    """The best whole trial so far, as work goes on.

    Attributes:
        cost: (T,) work of all trials that had ended by then, those that were stopped, diverged or failed included.
            Trials that were running at that moment are not in it.
        best: (T,) the highest Delta_m of a whole trial by then, in percent; NaN before there is one.
    """

    cost: Array
    best: Array

    @property
    def total(self) -> float:
        """All of the work."""
        return float(self.cost[-1]) if self.cost.size else 0.0

    @property
    def final(self) -> float:
        """The best of all; NaN where no trial went to its end."""
        return float(self.best[-1]) if self.best.size else math.nan

    def at(self, cost: Array) -> Array:
        """The best after each of (N,) costs."""
        places = np.searchsorted(self.cost, cost, side="right") - 1
        return np.where(places >= 0, self.best[np.maximum(places, 0)], np.nan) if self.cost.size else cost * np.nan

    def reached(self, value: float) -> float:
        """The cost after which the best was ``value`` or more; NaN where it never was."""
        there = np.flatnonzero(self.best >= value)
        return float(self.cost[there[0]]) if there.size else math.nan


def progress(trials: pd.DataFrame, cost: str = "trunk_passes") -> Progress:
    """Of one contender's trials, as :attr:`analysis.search.records.SearchRecords.trials` has them.

    Args:
        trials: in any order; those that have not ended are left out.
        cost: ``trunk_passes``, ``seconds`` or ``iterations``.
    """
    ended = trials[trials["ended"].notna()].sort_values(["ended", "number"], kind="stable")
    spent = np.cumsum(ended[cost].fillna(0.0).to_numpy(dtype=np.float64))
    value = ended["delta_m"].where(ended["status"].isin(WHOLE)).to_numpy(dtype=np.float64)
    best = np.fmax.accumulate(value) if value.size else value
    return Progress(spent, best)


def best_trial(trials: pd.DataFrame) -> pd.Series | None:
    """The whole trial of the highest Delta_m, the earlier of equals; ``None`` where there is none."""
    whole = trials[trials["status"].isin(WHOLE) & trials["delta_m"].notna()]
    if whole.empty:
        return None
    return whole.sort_values(["delta_m", "number"], ascending=[False, True], kind="stable").iloc[0]


def front(values: Array, maximize: Sequence[bool]) -> NDArray[np.bool_]:
    """Which rows no other row beats: none is at least as good in every column and better in one.

    Args:
        values: (N, V); a row with a NaN is on no front and beats none.
        maximize: (V,) whether more is better.

    Returns:
        (N,) truth values.
    """
    good = np.where(np.asarray(maximize), values, -values)
    finite: NDArray[np.bool_] = np.array(np.isfinite(good).all(axis=1))
    out = finite.copy()
    for row in np.flatnonzero(finite):
        beats = (good[finite] >= good[row]).all(axis=1) & (good[finite] > good[row]).any(axis=1)
        out[row] = not beats.any()
    return out
