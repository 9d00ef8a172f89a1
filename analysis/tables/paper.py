"""The paper's tables of results, one function each; and what any study shows that trains by groups."""

from __future__ import annotations

import math

import pandas as pd

from analysis.records import Records
from analysis.tables import columns as c
from analysis.tables.rows import rows_table
from study import schema


def with_groups(records: Records) -> pd.DataFrame:
    """:func:`rows_table` with one more column, ``groups``: the number of groups, mean over iterations and seeds.

    Rows trained without groups have NaN there.
    """
    table = rows_table(records)
    place = table.columns.to_list().index(c.TRUNK_PASSES)
    table.insert(place, c.GROUPS, _mean_groups(records))
    table.attrs["columns"].insert(place, c.column(c.GROUPS, "mean groups", c.GROUPS))
    return table


def _mean_groups(records: Records) -> list[float]:
    means = records.trials.groupby(["row", "seed"])[schema.MEAN_GROUPS].mean().groupby("row").mean()
    return [float(means.get(row.id, math.nan)) for row in records.plan.rows]


def table2(records: Records) -> pd.DataFrame:
    """Table 2: fourteen methods on the 11 Taskonomy tasks, ViT-L."""
    return rows_table(records)


def d1(records: Records) -> pd.DataFrame:
    """Table D.1: the same with ViT-B."""
    return rows_table(records)


def d2(records: Records) -> pd.DataFrame:
    """Table D.2: the same with ViT-S."""
    return rows_table(records)


def d3(records: Records) -> pd.DataFrame:
    """Table D.3: the same with ViT-T."""
    return rows_table(records)


def table3_nyud(records: Records) -> pd.DataFrame:
    """Table 3, left half: fourteen methods on the four NYUD-v2 tasks."""
    return rows_table(records)


def table3_pascal(records: Records) -> pd.DataFrame:
    """Table 3, right half: fourteen methods on the five PASCAL-Context tasks."""
    return rows_table(records)


def table4(records: Records) -> pd.DataFrame:
    """Table 4: update order, and grouping, with the number of groups."""
    return with_groups(records)


def table4_d5(records: Records) -> pd.DataFrame:
    """Tables 4 and D.5 in one, with the number of groups."""
    return with_groups(records)


def d4(records: Records) -> pd.DataFrame:
    """Table D.4: the decay rate beta, with the number of groups."""
    return with_groups(records)


def d5(records: Records) -> pd.DataFrame:
    """Table D.5: the grouping strategy, with the number of groups."""
    return with_groups(records)


def d6(records: Records) -> pd.DataFrame:
    """Table D.6: the batch size, with the number of groups."""
    return with_groups(records)
