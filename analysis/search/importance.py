"""Which axes matter: shares of the variance of Delta_m over a contender's whole trials.

Where those trials are a complete factorial the shares are exact (:mod:`analysis.search.anova`); elsewhere they are
those of Optuna's fANOVA with a fixed seed, and the interactions those of our own forest of the same kind. Optuna's
default, PED-ANOVA, asks something else (what tells good trials from all), and inverted a factorial of shares 98/2/0.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.search.anova import decompose, is_complete_factorial
from analysis.search.forest import Forest
from analysis.search.plan import Axis, same
from analysis.search.records import WHOLE

Array = NDArray[np.float64]

EXACT = "exact ANOVA"
FANOVA = "fANOVA"
FEWEST = 4
"""Trials below which no shares are given."""

_SEED = 0


@dataclass(frozen=True)
class Sample:
    """Whole trials in which some axes exist and vary.

    Attributes:
        axes: D of them.
        points: N, path to value.
        values: (N,) Delta_m.
    """

    axes: tuple[Axis, ...]
    points: tuple[Mapping[str, object], ...]
    values: Array

    @property
    def places(self) -> Array:
        """(N, D) in the unit cube; raises :class:`StoreError` for a value that is none of its axis."""
        rows = [[axis.place(point[axis.path]) for axis in self.axes] for point in self.points]
        return np.array(rows, dtype=np.float64).reshape(len(self.points), len(self.axes))

    @property
    def levels(self) -> list[tuple[str, ...]]:
        """N rows of D levels, for a factorial."""
        return [tuple(same(point[axis.path]) for axis in self.axes) for point in self.points]

    @property
    def tells(self) -> bool:
        """Whether there is anything to take apart."""
        return len(self.values) >= FEWEST and bool(self.axes) and bool(np.ptp(self.values) > 0)


@dataclass(frozen=True)
class Shares:
    """Of one sample.

    Attributes:
        sample: what they are of.
        main: (D,) of each axis alone.
        pairs: (D, D) of each pair beyond its two axes, zeros on the diagonal.
        method: :data:`EXACT` or :data:`FANOVA`.
    """

    sample: Sample
    main: Array
    pairs: Array
    method: str


@dataclass(frozen=True)
class Importance:
    """Of one axis.

    Attributes:
        axis: the axis.
        share: of the variance, by the axis alone; NaN where too few trials tell.
        method: how it was found; empty where it was not.
        trials: number of whole trials it rests on.
        beside: number of axes that vary in those, itself included.
        condition: of an axis that some trials lack: when it exists, in words. Its share is of the trials that have it.
    """

    axis: Axis
    share: float
    method: str
    trials: int
    beside: int
    condition: str


def whole_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Those that went to their end and have a finite Delta_m. A stopped trial's is that of fewer iterations: it would
    lend its axes the effect of training time."""
    return trials[trials["status"].isin(WHOLE) & np.isfinite(trials["delta_m"].astype(float))]


def sample(trials: pd.DataFrame, axes: Sequence[Axis], having: str | None = None) -> Sample:
    """The whole trials, or of those the ones that have the axis ``having``, with the axes that all of them have and not
    all at one value."""
    whole = whole_trials(trials)
    rows = [
        (point, value)
        for point, value in zip(whole["point"], whole["delta_m"], strict=True)
        if having is None or having in point
    ]
    points = tuple(point for point, _ in rows)
    kept = tuple(
        axis
        for axis in axes
        if points
        and all(axis.path in point for point in points)
        and len({same(point[axis.path]) for point in points}) > 1
    )
    return Sample(kept, points, np.array([value for _, value in rows], dtype=np.float64))


def shares(taken: Sample) -> Shares | None:
    """The shares of a sample; ``None`` where it does not tell (too few trials, nothing varies, all equally good)."""
    if not taken.tells:
        return None
    if is_complete_factorial(taken.levels):
        exact = decompose(taken.levels, list(taken.values))
        return Shares(taken, exact.main, exact.pairs, EXACT)
    _, pairs = Forest.fit(taken.places, taken.values).shares
    return Shares(taken, fanova(taken), pairs, FANOVA)


def fanova(taken: Sample) -> Array:
    """(D,) shares of each axis alone by Optuna's fANOVA.

    The trials are rebuilt in memory, so that Optuna's storage need not be there. Logarithmic axes are given in their
    logarithm: the evaluator weighs an axis evenly from end to end, whatever its scale.
    """
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    names = [axis.path for axis in taken.axes]
    distributions: dict[str, BaseDistribution] = {
        axis.path: CategoricalDistribution([same(value) for value in axis.values])
        if axis.kind == "choice"
        else FloatDistribution(0.0, 1.0)
        for axis in taken.axes
    }
    with _quiet():
        study = optuna.create_study(direction="maximize")
        for point, value in zip(taken.points, taken.values, strict=True):
            params = {
                axis.path: same(point[axis.path]) if axis.kind == "choice" else axis.place(point[axis.path])
                for axis in taken.axes
            }
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=float(value)))
        found = optuna.importance.FanovaImportanceEvaluator(seed=_SEED).evaluate(study, names)
    return np.array([found[name] for name in names])


def importances(trials: pd.DataFrame, axes: Sequence[Axis]) -> list[Importance]:
    """Every axis of a contender: those that all trials have, the most important first, then the others likewise.

    An axis that all whole trials have is judged over all of them. One that only some have is judged over those, beside
    the axes that they all have.
    """
    whole = whole_trials(trials)
    out: list[Importance] = []
    known: dict[tuple[int, ...], tuple[Sample, Shares | None]] = {}
    for axis in axes:
        having = tuple(place for place, point in enumerate(whole["point"]) if axis.path in point)
        conditional = len(having) < len(whole)
        if having not in known:
            taken = sample(whole, axes, axis.path if conditional else None)
            known[having] = (taken, shares(taken))
        taken, found = known[having]
        paths = [other.path for other in taken.axes]
        told = found is not None and axis.path in paths
        out.append(
            Importance(
                axis=axis,
                share=float(found.main[paths.index(axis.path)]) if found is not None and told else np.nan,
                method=found.method if found is not None and told else "",
                trials=len(having),
                beside=len(paths),
                condition=(axis.condition() or "some trials lack it") if conditional else "",
            )
        )
    return sorted(out, key=lambda one: (bool(one.condition), -one.share if np.isfinite(one.share) else np.inf))


@contextmanager
def _quiet() -> Iterator[None]:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
