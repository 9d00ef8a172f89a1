"""A study that varies one knob at a time around the defaults: how far Delta_m moves with each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from analysis.plan import Plan, PlanRow
from analysis.records import Records
from analysis.tables import columns as c
from analysis.tables.paper import with_groups

PREFIX = "sensitivity_"
"""Of the ids of such studies."""


@dataclass(frozen=True)
class Knob:
    """One field of a method, varied.

    Attributes:
        default: the method's row at its defaults.
        name: of the field; its whole path where two of the method's fields end alike.
        values: what was tried beside the default, in the plan's order, and its row.
    """

    default: PlanRow
    name: str
    values: tuple[tuple[str, PlanRow], ...]


def knobs_of(plan: Plan) -> list[Knob]:
    """The knobs of a plan: a row belongs to the method whose id and label begin its own."""
    found: dict[tuple[str, str], list[tuple[str, str, PlanRow]]] = {}
    owners = {row.id: row for row in plan.rows if row.id != plan.baseline}
    for row in owners.values():
        able = [one for one in owners.values() if _owns(one, row)]
        if able:
            owner = max(able, key=lambda one: len(one.id))
            name, _, value = row.label.removeprefix(f"{owner.label}, ").partition(" ")
            path = row.id.removeprefix(f"{owner.id}_").removesuffix(f"_{_slug(value)}")
            found.setdefault((owner.id, path), []).append((name, value, row))
    names = [(owner, rows[0][0]) for (owner, _), rows in found.items()]
    return [
        Knob(
            default=owners[owner],
            name=rows[0][0] if names.count((owner, rows[0][0])) == 1 else path,
            values=tuple((value, row) for _, value, row in rows),
        )
        for (owner, path), rows in found.items()
    ]


def _owns(one: PlanRow, row: PlanRow) -> bool:
    return row.id.startswith(f"{one.id}_") and row.label.startswith(f"{one.label}, ")


def _slug(text: str) -> str:
    """As ids of rows spell a value."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower().replace("-", "m")).strip("_")


def knob_ranges(records: Records) -> pd.DataFrame:
    """One line per method and knob, widest first: ``method``, ``knob``, ``default`` (Delta_m there, in percent),
    ``least`` and ``least_at`` (its value), ``most`` and ``most_at``, ``range`` (most - least, the default among the
    values; NaN for fewer than two numbers), ``values`` (numbers there are), ``lost`` (values without one)."""
    return _ranges(with_groups(records), records.plan)


def sensitivity(records: Records) -> pd.DataFrame:
    """:func:`analysis.tables.paper.with_groups`, with :func:`knob_ranges` in words as the first footnotes."""
    table = with_groups(records)
    ranges = _ranges(table, records.plan)
    table.attrs["footnotes"] = [*_words(ranges), *table.attrs["footnotes"]]
    return table


def _ranges(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    gains = dict(zip(table.attrs["row_ids"], table[c.DELTA_M], strict=True))
    lines = []
    for knob in knobs_of(plan):
        tried = [("default", gains[knob.default.id]), *((value, gains[row.id]) for value, row in knob.values)]
        finite = [(gain, value) for value, gain in tried if math.isfinite(gain)]
        least, most = (min(finite), max(finite)) if finite else ((math.nan, ""), (math.nan, ""))
        lines.append(
            {
                "method": knob.default.label,
                "knob": knob.name,
                "default": tried[0][1],
                "least": least[0],
                "least_at": least[1],
                "most": most[0],
                "most_at": most[1],
                "range": most[0] - least[0] if len(finite) > 1 else math.nan,
                "values": len(finite),
                "lost": len(tried) - len(finite),
            }
        )
    names = ["method", "knob", "default", "least", "least_at", "most", "most_at", "range", "values", "lost"]
    frame = pd.DataFrame(lines, columns=names)
    return frame.sort_values("range", ascending=False, kind="stable", ignore_index=True)


def _words(ranges: pd.DataFrame) -> Iterator[str]:
    for line in ranges.to_dict("records"):
        about = f"{line['method']}, {line['knob']}"
        lost = f"; {line['lost']} of its values without a number" if line["lost"] else ""
        if math.isnan(line["range"]):
            yield f"{about}: fewer than two values have a Delta_m{lost}"
            continue
        default = f"{line['default']:+.2f} at the default" if math.isfinite(line["default"]) else "no default"
        yield (
            f"{about}: Delta_m moves by {line['range']:.2f}, from {line['least']:+.2f} ({line['least_at']}) to "
            f"{line['most']:+.2f} ({line['most_at']}), {default}{lost}"
        )
