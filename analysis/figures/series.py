"""Numbers over training, by seed: their mean and spread, and the grouping histories they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.plan import PlanRow
from analysis.records import Records
from study import schema
from trainables.errors import StoreError

Array = NDArray[np.float64]

BACKBONE_STUDIES = ("table2", "d1", "d2", "d3")
"""The studies of the paper's backbones on Taskonomy, ViT-L to ViT-T."""

_ARRAYS = ("iteration", "affinity", "tasks")
"""Of a grouping history, what its affinity needs."""


@dataclass(frozen=True)
class Series:
    """Mean and spread over seeds along training.

    Attributes:
        x: (T,) iterations.
        mean: (T, ...) over the seeds that have the iteration.
        sd: (T, ...) sample standard deviation; NaN where fewer than two seeds have it.
        seeds: number of seeds.
    """

    x: Array
    mean: Array
    sd: Array
    seeds: int

    def pair(self, source: int, target: int) -> Series:
        """Of a (T, K, K) series, the (T,) one of two tasks."""
        return Series(self.x, self.mean[:, source, target], self.sd[:, source, target], self.seeds)


def over_seeds(runs: Sequence[tuple[Array, Array]]) -> Series:
    """The series of one or more seeds, each (T_s,) iterations and (T_s, ...) values; seeds may have different points.

    A value that is NaN makes the mean of its point NaN: a gap shows, an average over the rest would not be one.
    """
    x = np.unique(np.concatenate([steps for steps, _ in runs])).astype(np.float64)
    shape = (len(runs), len(x), *runs[0][1].shape[1:])
    values, present = np.zeros(shape), np.zeros(shape, dtype=bool)
    for seed, (steps, series) in enumerate(runs):
        places = np.searchsorted(x, steps)
        values[seed, places] = series
        present[seed, places] = True
    return _series(x, values, present)


def over_points(points: pd.DataFrame) -> Series:
    """:func:`over_seeds` of the points of one row and metric, as :meth:`analysis.records.Records.curves` gives them:
    ``seed``, ``step``, ``value``."""
    x, places = np.unique(points["step"].to_numpy(dtype=np.float64), return_inverse=True)
    seeds, numbers = np.unique(points["seed"].to_numpy(), return_inverse=True)
    values, present = np.zeros((len(seeds), len(x))), np.zeros((len(seeds), len(x)), dtype=bool)
    values[numbers, places] = points["value"].to_numpy(dtype=np.float64)
    present[numbers, places] = True
    return _series(x, values, present)


def _series(x: Array, values: Array, present: NDArray[np.bool_]) -> Series:
    """From (S, T, ...) values of S seeds, 0 where they are not ``present``."""
    count = present.sum(axis=0)
    mean = values.sum(axis=0) / count
    squares = np.where(present, (values - mean) ** 2, 0.0).sum(axis=0)
    sd = np.full_like(mean, np.nan)
    np.divide(squares, count - 1, out=sd, where=count > 1)
    return Series(x, mean, np.sqrt(sd), len(values))


def draw_band(axes: Axes, series: Series, colour: str, dashes: Any = "-") -> Line2D:
    """The mean as a line and, where there are two seeds or more, mean ± sd as a band. ``series`` is of (T,) values."""
    few = len(series.x) < 3
    (line,) = axes.plot(series.x, series.mean, color=colour, linestyle=dashes, marker="o" if few else "", markersize=2)
    if np.isfinite(series.sd).any():
        axes.fill_between(
            series.x, series.mean - series.sd, series.mean + series.sd, color=colour, alpha=0.18, linewidth=0
        )
    return line


@dataclass(frozen=True)
class Affinity:
    """The affinity that one row tracked, its complete trials.

    Attributes:
        records: the row's study.
        row: of its plan.
        backbone: what was trained.
        tasks: (K,) names in the plan's order.
        shorts: (K,) their abbreviations.
        affinity: (T, K, K), ``[:, i, k]`` from source i to target k.
        trial_keys: of the trials.
    """

    records: Records
    row: PlanRow
    backbone: str
    tasks: tuple[str, ...]
    shorts: tuple[str, ...]
    affinity: Series
    trial_keys: tuple[str, ...]

    @property
    def label(self) -> str:
        """The backbone and where it was trained."""
        return f"{self.backbone or 'backbone not named'} ({self.records.plan.study})"

    @property
    def tracked(self) -> bool:
        """Whether an affinity was recorded at all."""
        return bool(np.isfinite(self.affinity.mean).any())


@dataclass(frozen=True)
class Grouping(Affinity):
    """The whole grouping histories of one row.

    Attributes:
        together: (K, K) share of all iterations in which two tasks shared a group, mean over seeds.
        count: (T,) the number of groups.
    """

    together: Array
    count: Series


Found = TypeVar("Found", bound=Affinity)
Read = Callable[[Records, str], Found | None]


def affinity(records: Records, row_id: str) -> Affinity | None:
    """:func:`grouping` without the groups, which are half of what is to be read. Raises as it does."""
    found = _histories(records, row_id, ())
    return found and Affinity(*found[0])


def grouping(records: Records, row_id: str) -> Grouping | None:
    """The histories of a row; ``None`` where the plan has no such row or none of its trials is complete.

    Raises:
        StoreError: a complete trial has no history, or not the arrays of one.
    """
    found = _histories(records, row_id, ("count", "together"))
    if found is None:
        return None
    own, order, histories = found
    square = np.ix_(order, order)
    shares = [_share(history)[square] for history in histories]
    counts = [(history["iteration"].astype(np.float64), history["count"].astype(np.float64)) for history in histories]
    return Grouping(*own, together=np.mean(shares, axis=0), count=over_seeds(counts))


def by_backbone(studies: Iterable[Records], row_id: str, read: Read[Found]) -> list[Found]:
    """What :func:`affinity` or :func:`grouping` reads of a row in several studies, one of each backbone: of studies
    that trained the same one, the first."""
    found: dict[str, Found] = {}
    for records in studies:
        history = read(records, row_id)
        if history is not None:
            found.setdefault(history.backbone, history)
    return list(found.values())


_Own = tuple[Records, PlanRow, str, tuple[str, ...], tuple[str, ...], Series, tuple[str, ...]]


def _histories(
    records: Records, row_id: str, more: Sequence[str]
) -> tuple[_Own, NDArray[np.int64], list[dict[str, NDArray[Any]]]] | None:
    """The fields of :class:`Affinity`, the places of its tasks in the histories, and the histories with ``more`` of
    their arrays."""
    row = next((row for row in records.plan.rows if row.id == row_id), None)
    done = records.trials[(records.trials["row"] == row_id) & (records.trials["status"] == schema.COMPLETE)]
    if row is None or done.empty:
        return None
    histories = {key: records.whole_history(key, (*_ARRAYS, *more)) for key in done["trial_key"]}
    recorded = {tuple(str(task) for task in history["tasks"]) for history in histories.values()}
    if len(recorded) > 1:
        raise StoreError(f"row '{row_id}' of study '{records.plan.study}': its trials have different tasks")
    names = recorded.pop()
    planned = {task.name: task.short or task.name for task in records.plan.tasks}
    tasks = tuple(task for task in planned if task in names) or names
    order = np.array([names.index(task) for task in tasks])
    series = [
        (history["iteration"].astype(np.float64), history["affinity"][:, order[:, None], order])
        for history in histories.values()
    ]
    backbone = ", ".join(dict.fromkeys(name for name in done[schema.BACKBONE] if name))
    shorts = tuple(planned.get(task, task) for task in tasks)
    own = (records, row, backbone, tasks, shorts, over_seeds(series), tuple(histories))
    return own, order, list(histories.values())


def _share(history: Mapping[str, NDArray[Any]]) -> Array:
    """(K, K) share of iterations: a window's share counts by its iterations, which are fewer in a last, short one."""
    lengths = np.diff(history["iteration"], prepend=0).astype(np.float64)
    return np.tensordot(lengths / lengths.sum(), history["together"], axes=1)
