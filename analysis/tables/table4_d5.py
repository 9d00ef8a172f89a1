"""Table 4 (update order, grouping) and Table D.5 (grouping) in one: which groups, and in which order they step."""

from __future__ import annotations

import math

import pandas as pd

from analysis.records import Records
from analysis.tables import columns as c
from analysis.tables.rows import rows_table
from study import schema


def table4_d5(records: Records) -> pd.DataFrame:
    """:func:`rows_table` with one more column, ``groups``: the number of groups, mean over logged iterations and seeds.

    Rows trained without groups have NaN there.
    """
    table = rows_table(records)
    place = table.columns.to_list().index(c.TRUNK_PASSES)
    table.insert(place, c.GROUPS, _mean_groups(records))
    table.attrs["columns"].insert(place, c.column(c.GROUPS, "mean groups", c.GROUPS))
    return table


def _mean_groups(records: Records) -> list[float]:
    rows = [row.id for row in records.plan.rows]
    if schema.GROUP_COUNT not in records.metric_names:
        return [math.nan] * len(rows)
    curves = records.curves(schema.GROUP_COUNT)
    means = curves.groupby(["row", "seed"])["value"].mean().groupby("row").mean()
    return [float(means.get(row, math.nan)) for row in rows]
