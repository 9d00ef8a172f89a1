"""How much better one way to search is than another, at equal cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from analysis.figures.series import Series, over_seeds
from analysis.search.incumbent import Progress, progress
from analysis.search.records import SearchRecords
from trainables.errors import StoreError

Array = NDArray[np.float64]

_POINTS = 201


@dataclass(frozen=True)
class Regret:
    """One contender's search against a reference at equal cost, over repeats of both.

    Attributes:
        contender: id.
        cost: what is counted.
        grid: (T,) costs, from 0 to what every repeat of both has spent.
        search: best so far over the repeats: mean, sample standard deviation. NaN until every repeat has a best.
        reference: the same.
        best: the highest Delta_m of any repeat of either; regret is its distance.
        target: the mean over the repeats of what the reference ends with, in percent.
        reference_cost: mean over the repeats of the cost after which the reference had its best.
        reference_total: mean of what the reference spent.
        search_cost: the cost after which the mean of the search's best so far is ``target`` or more; NaN where it never
            is.
        search_final: mean over the repeats of what the search ends with.
        search_total: mean of what the search spent.
    """

    contender: str
    cost: str
    grid: Array
    search: Series
    reference: Series
    best: float
    target: float
    reference_cost: float
    reference_total: float
    search_cost: float
    search_final: float
    search_total: float

    @property
    def search_regret(self) -> Array:
        """(T,) mean regret of the search, in points of Delta_m."""
        return self.best - self.search.mean

    @property
    def reference_regret(self) -> Array:
        """(T,) mean regret of the reference."""
        return self.best - self.reference.mean

    @property
    def ratio(self) -> float:
        """Cost at which the search has what the reference ends with, as a share of what the reference spent for it;
        NaN where it never has."""
        return self.search_cost / self.reference_cost if self.reference_cost else math.nan


def regret(
    search: Sequence[SearchRecords],
    reference: Sequence[SearchRecords],
    contender: str,
    cost: str = "trunk_passes",
) -> Regret:
    """Hold a search against a reference, random search as a rule.

    Args:
        search: repeats of one way to search: the same space under other seeds.
        reference: repeats of another.
        contender: whose trials; every search has it.
        cost: ``trunk_passes``, ``seconds`` or ``iterations``.

    Raises:
        StoreError: a repeat has no whole trial of the contender.
    """
    ours, theirs = _progress(search, contender, cost), _progress(reference, contender, cost)
    most = min(each.total for each in (*ours, *theirs))
    grid = np.linspace(0.0, most, _POINTS)
    target = fmean(each.final for each in theirs)
    every = np.unique(np.concatenate([each.cost for each in ours]))
    mean = np.mean([each.at(every) for each in ours], axis=0)
    there = np.flatnonzero(mean >= target)
    return Regret(
        contender=contender,
        cost=cost,
        grid=grid,
        search=series(ours, grid),
        reference=series(theirs, grid),
        best=max(each.final for each in (*ours, *theirs)),
        target=target,
        reference_cost=fmean(each.reached(each.final) for each in theirs),
        reference_total=fmean(each.total for each in theirs),
        search_cost=float(every[there[0]]) if there.size else math.nan,
        search_final=fmean(each.final for each in ours),
        search_total=fmean(each.total for each in ours),
    )


def series(repeats: Sequence[Progress], grid: Array) -> Series:
    """Best so far over repeats on (T,) costs."""
    return over_seeds([(grid, each.at(grid)) for each in repeats])


def _progress(searches: Sequence[SearchRecords], contender: str, cost: str) -> list[Progress]:
    found = []
    for records in searches:
        made = progress(records.of_contender(contender), cost)
        if not math.isfinite(made.final):
            raise StoreError(
                f"search '{records.plan.search}' (run {records.run.run_id}): contender '{contender}' has no whole trial"
            )
        found.append(made)
    return found
