"""Tables by study id. A study made by a search gets default beside tuned, one that varies one knob at a time how far
each moves the result, and any other its rows, with the number of groups where it has any.

A new table is one function ``Records -> DataFrame`` and one name in :data:`TABLES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import pandas as pd

from analysis.records import Records
from analysis.tables.cost import e1, table1
from analysis.tables.equal_compute import equal_compute
from analysis.tables.paper import (
    d1,
    d2,
    d3,
    d4,
    d5,
    d6,
    table2,
    table3_nyud,
    table3_pascal,
    table4,
    table4_d5,
    with_groups,
)
from analysis.tables.rows import rows_table
from analysis.tables.sensitivity import PREFIX, sensitivity
from analysis.tables.tuned import is_of_a_search, tuned
from study.schema import GROUP_COUNT

Table = Callable[[Records], pd.DataFrame]

_OF_THE_PAPER = (table1, table2, table3_nyud, table3_pascal, table4, table4_d5, d1, d2, d3, d4, d5, d6, e1)

TABLES: Mapping[str, Table] = MappingProxyType(
    {table.__name__: table for table in (*_OF_THE_PAPER, equal_compute, tuned)}
)


def make_table(records: Records) -> pd.DataFrame:
    """The table of the records' study."""
    plan = records.plan
    if plan.study in TABLES:
        return TABLES[plan.study](records)
    if is_of_a_search(plan):
        return tuned(records)
    if plan.study.startswith(PREFIX):
        return sensitivity(records)
    return (with_groups if GROUP_COUNT in records.metric_names else rows_table)(records)


__all__ = [
    "TABLES",
    "Table",
    "d1",
    "d2",
    "d3",
    "d4",
    "d5",
    "d6",
    "e1",
    "equal_compute",
    "make_table",
    "rows_table",
    "sensitivity",
    "table1",
    "table2",
    "table3_nyud",
    "table3_pascal",
    "table4",
    "table4_d5",
    "tuned",
    "with_groups",
]
