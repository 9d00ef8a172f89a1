"""Tables by study id. A study without one of its own gets :func:`rows_table`.

A new table is one file with one function ``Records -> DataFrame`` and one line in :data:`TABLES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import pandas as pd

from analysis.records import Records
from analysis.tables.cost import e1, table1
from analysis.tables.rows import rows_table
from analysis.tables.table4_d5 import table4_d5

__all__ = ["TABLES", "Table", "rows_table", "e1", "table1", "table4_d5", "make_table"]

Table = Callable[[Records], pd.DataFrame]

TABLES: Mapping[str, Table] = MappingProxyType({"table1": table1, "e1": e1, "table4_d5": table4_d5})


def make_table(records: Records) -> pd.DataFrame:
    """The table of the records' study: its own where one is registered, :func:`rows_table` otherwise."""
    return TABLES.get(records.plan.study, rows_table)(records)
