"""The paper's published numbers and what is known to be wrong in them. Source: ``published/README.md``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import pandas as pd

from analysis.delta_m import delta_m
from trainables.errors import ConfigError, unknown

SINGLE_TASK = "Single Task"

_BASE_TABLE = {"D.5": "D.1"}
"""Tables without a single-task row of their own, and where theirs stands (same backbone, same data)."""

_SAME_RUN = {("4:grouping", "joint"): ("2", "GD"), ("4:grouping", "selective"): ("2", "Ours")}
"""Rows of Table 4 that print the Delta_m and the spread of a row of Table 2, which prints the task numbers too."""

_BACKBONES = {"vit_large": "ViT-L", "vit_base": "ViT-B", "vit_small": "ViT-S", "vit_tiny": "ViT-T"}


@dataclass(frozen=True)
class KnownError:
    """A reason to read a published number with care; the kinds are listed in ``published/README.md``.

    Attributes:
        table: of the paper, or ``text``.
        row: as the paper names it; empty where the whole table is meant.
        kind: what sort of error.
        note: one line.
    """

    table: str
    row: str
    kind: str
    note: str


def published_delta_m(table: str, row: str, dataset: str | None = None) -> float:
    """The printed Delta_m in percent; NaN where the paper prints a dash.

    Args:
        table: ``2``, ``3``, ``4:update_order``, ``4:grouping``, ``D.1`` to ``D.6``.
        row: as the paper names it.
        dataset: needed only where a table covers several (Table 3).

    Raises:
        ConfigError: no such table, row or data set, or the data set is needed and not given.
    """
    return float(_row(table, row, dataset)["delta_m_percent"])


def published_spread(table: str, row: str, dataset: str | None = None) -> float:
    """The printed "±" of Delta_m over three seeds, kind not stated; NaN where none is printed. Raises as above."""
    return float(_row(table, row, dataset)["delta_m_spread"])


def published_tasks(table: str, row: str, dataset: str | None = None) -> dict[str, float]:
    """Task name to printed metric, NaN for a dash; empty where the table prints no task numbers. Raises as above."""
    found = _row(table, row, dataset)
    metrics = _task_metrics()
    rows = metrics[(metrics["table"] == table) & (metrics["row"] == row) & (metrics["dataset"] == found["dataset"])]
    return dict(zip(rows["task"].tolist(), rows["value"].tolist(), strict=True))


def published_backbone(table: str, row: str, dataset: str | None = None) -> str:
    """``ViT-L``; empty where the paper does not name it. Raises as above."""
    backbone = _row(table, row, dataset)["backbone"]
    return _BACKBONES.get(backbone, "") if isinstance(backbone, str) else ""


def single_task_base(table: str, dataset: str | None = None) -> dict[str, float]:
    """Task name to the single-task metric Delta_m is taken against; empty where none is printed. Raises as above.

    Table D.5 uses Table D.1's; Table D.6 prints one, of batch 8, for all its batches.
    """
    known = _choose("published table", table, _delta_m()["table"])
    base_table = _BASE_TABLE.get(known, known)
    rows = _delta_m()
    if SINGLE_TASK not in set(rows.loc[rows["table"] == base_table, "row"]):
        return {}
    return published_tasks(base_table, SINGLE_TASK, dataset)


@cache
def recomputed_delta_m(table: str, row: str, dataset: str | None = None) -> float:
    """Delta_m in percent from the printed task numbers, against :func:`single_task_base`.

    The inputs are rounded, so it agrees with the printed one only to about .05. NaN where task numbers are not
    printed or one is a dash, and for the single-task row itself. Table 4 prints none; its joint and selective rows
    are Table 2's GD and Ours. Raises as above.
    """
    if row == SINGLE_TASK:
        _row(table, row, dataset)
        return math.nan
    table, row = _SAME_RUN.get((table, row), (table, row))
    values = published_tasks(table, row, dataset)
    base = single_task_base(table, dataset)
    if not values or not base:
        return math.nan
    return delta_m(values, base, _directions(str(_row(table, row, dataset)["dataset"])))


def known_errors(table: str, row: str) -> tuple[KnownError, ...]:
    """What is known to be wrong in one row of a table, what is wrong in the whole table included."""
    return tuple(error for error in all_known_errors() if error.table == table and error.row in ("", row))


@cache
def all_known_errors() -> tuple[KnownError, ...]:
    """Every line of ``published/known_errors.csv``."""
    table = _read("known_errors.csv").fillna("")
    return tuple(
        KnownError(*line) for line in table[["table", "row", "kind", "note"]].itertuples(index=False, name=None)
    )


@cache
def published_datasets(table: str) -> tuple[str, ...]:
    """The data sets a table covers. Raises ConfigError for an unknown table."""
    rows = _delta_m()
    return tuple(rows.loc[rows["table"] == _choose("published table", table, rows["table"]), "dataset"].unique())


def step_seconds() -> pd.DataFrame:
    """Table E.1: seconds per batch by row and phase, on Taskonomy with ViT-L and 11 tasks."""
    return _read("step_seconds.csv")


@cache
def _row(table: str, row: str, dataset: str | None) -> pd.Series:
    """The one line of ``delta_m.csv``, not to be changed."""
    rows = _delta_m()
    rows = rows[rows["table"] == _choose("published table", table, rows["table"])]
    if dataset is None and rows["dataset"].nunique() > 1:
        raise ConfigError(f"published table '{table}' covers {', '.join(rows['dataset'].unique())}: name the data set")
    if dataset is not None:
        rows = rows[rows["dataset"] == _choose(f"data set of published table '{table}'", dataset, rows["dataset"])]
    rows = rows[rows["row"] == _choose(f"row of published table '{table}'", row, rows["row"])]
    return rows.iloc[0]


def _choose(kind: str, name: str, allowed: Iterable[str]) -> str:
    if name not in set(allowed):
        raise ConfigError(unknown(kind, name, set(allowed)))
    return name


def _directions(dataset: str) -> dict[str, bool]:
    metrics = _task_metrics()
    tasks = metrics.loc[metrics["dataset"] == dataset, ["task", "better"]].drop_duplicates()
    return {task: better == "higher" for task, better in tasks.itertuples(index=False, name=None)}


@cache
def _delta_m() -> pd.DataFrame:
    return _read("delta_m.csv")


@cache
def _task_metrics() -> pd.DataFrame:
    return _read("task_metrics.csv")


def _read(name: str) -> pd.DataFrame:
    """A table of ``published/``; the table's name stays text (``2`` is no number), an empty value is NaN."""
    with files("analysis").joinpath("published", name).open("rb") as file:
        return pd.read_csv(file, dtype={"table": "str", "row": "str"})
